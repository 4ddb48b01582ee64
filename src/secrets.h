/*-------------------------------------------------------------------------
 *
 * secrets.h
 *	  The API key, the webhook signing secrets and the key that signs
 *	  checkpoints, read from files.
 *
 * Everything handed out here, but for key rings, is owned by secrets.c, lives in
 * this process only, and stays valid until the next call of the same function.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_SECRETS_H
#define SL_SECRETS_H

#include "datatype/timestamp.h"

#include "checkpoint_key.h"
#include "signature.h"

#define SL_MAX_WEBHOOK_SECRETS 16

typedef struct SlWebhookSecret
{
	char	   *label;			/* NULL when the line has none */
	SlSigKey   *key;
	char		fingerprint[17];	/* first 16 hex digits of its SHA-256 */
	bool		is_short;		/* shorter than Stripe makes them */
} SlWebhookSecret;

typedef enum SlKeyMode
{
	SL_KEY_MODE_UNKNOWN,
	SL_KEY_TEST,
	SL_KEY_LIVE
} SlKeyMode;

typedef enum SlSecretKind
{
	SL_SECRET_API_KEY,
	SL_SECRET_WEBHOOK,
	SL_SECRET_CHECKPOINT
} SlSecretKind;

/* What may be shown of a secret, or of a file that cannot be used. */
typedef struct SlSecretInfo
{
	SlSecretKind kind;
	char	   *label;			/* palloc'd, or NULL */
	char		fingerprint[17];	/* "" if the file cannot be used */
	TimestampTz modified;		/* of the file; 0 if that is not known */
	SlKeyMode	mode;			/* of API keys only */
	char	   *problems;		/* palloc'd sentences, or NULL */
} SlSecretInfo;

#define SL_MAX_SECRETS (2 + SL_MAX_WEBHOOK_SECRETS)

extern int	sl_webhook_secrets(SlWebhookSecret **out);
extern int	sl_webhook_secrets_problem(char **problem);

extern const char *sl_api_key(const char **why);
extern void sl_api_key_forget(void);
extern SlKeyMode sl_api_key_problem(char **problem);
extern SlKeyMode sl_api_key_mode(void);

extern SlKeyRing *sl_checkpoint_keys(bool for_log, const char **why);
extern int	sl_secrets_survey(SlSecretInfo *out);

#endif							/* SL_SECRETS_H */
