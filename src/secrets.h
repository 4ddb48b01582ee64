/*-------------------------------------------------------------------------
 *
 * secrets.h
 *	  The API key and the webhook signing secrets, read from files.
 *
 * Everything handed out here is owned by secrets.c, lives in this process
 * only, and stays valid until the next call of the same function.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_SECRETS_H
#define SL_SECRETS_H

#include "signature.h"

#define SL_MAX_WEBHOOK_SECRETS 16

typedef struct SlWebhookSecret
{
	char	   *label;			/* NULL when the line has none */
	SlSigKey   *key;
	char		fingerprint[17];	/* first 16 hex digits of its SHA-256 */
} SlWebhookSecret;

typedef enum SlKeyMode
{
	SL_KEY_MODE_UNKNOWN,
	SL_KEY_TEST,
	SL_KEY_LIVE
} SlKeyMode;

extern int	sl_webhook_secrets(SlWebhookSecret **out);
extern int	sl_webhook_secrets_problem(char **problem);

extern const char *sl_api_key(const char **why);
extern void sl_api_key_forget(void);
extern SlKeyMode sl_api_key_problem(char **problem);
extern SlKeyMode sl_api_key_mode(void);

#endif							/* SL_SECRETS_H */
