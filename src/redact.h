/*-------------------------------------------------------------------------
 *
 * redact.h
 *	  Masks in text, in place, what must not be read there.
 *
 * - card numbers (see card_number.h): their digits;
 * - Stripe's secret, restricted and ephemeral keys (sk_live_..., rk_test_...,
 *   ek_live_...): what follows the prefix;
 * - webhook signing secrets (whsec_...): the same;
 * - client secrets (pi_..._secret_..., seti_..., cs_... and their kind): what
 *   follows _secret_;
 * - what an ellipsis (...) has left of such things: digits and long words that
 *   touch it.
 * All of that also where a bytea is written in hexadecimal digits: \x736b5f...
 *
 * Every masked character becomes as many asterisks as it has bytes, so length,
 * encoding and positions in the text stay what they were.  Doing it twice is
 * doing it once.  Nothing is allocated and nothing can fail, whatever the bytes
 * are.  Time is linear in the length.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_REDACT_H
#define SL_REDACT_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Masks text of len bytes; returns how many places it has masked.  With
 * cut_lines the lines may have been cut at their end without an ellipsis.
 */
extern size_t sl_redact(char *text, size_t len, bool cut_lines);

/* Would sl_redact() find anything? */
extern bool sl_redact_finds(const char *text, size_t len);

/* Masks card numbers and nothing else. */
extern size_t sl_redact_cards(char *text, size_t len);

#endif							/* SL_REDACT_H */
