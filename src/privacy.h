/*-------------------------------------------------------------------------
 *
 * privacy.h
 *	  Keeps card numbers and secrets out of what is stored.
 *
 * What callers hand in is refused (SL019); what Stripe says is masked.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_PRIVACY_H
#define SL_PRIVACY_H

#include "utils/jsonb.h"

/*
 * Raise SL019 if there is a card number in a text, or in a key, string or
 * number of a jsonb, however deep.  'what' and 'name' say where, such as
 * "argument" and "reason".  Neither the value nor the statement is logged.
 */
extern void sl_refuse_card_text(const char *what, const char *name,
								const text *value);
extern void sl_refuse_card_jsonb(const char *what, const char *name,
								 Jsonb *value);

/* A palloc'd copy with card numbers, keys and secrets masked; NULL of NULL. */
extern char *sl_redacted(const char *s);

/* The same of len bytes, with card numbers masked alone. */
extern char *sl_without_cards(const char *s, int len);

#endif							/* SL_PRIVACY_H */
