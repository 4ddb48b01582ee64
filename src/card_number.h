/*-------------------------------------------------------------------------
 *
 * card_number.h
 *	  Finds payment card numbers in text that anybody may have written.
 *
 * A card number is 13 to 19 digits with any number of spaces and dashes
 * between them, that begin as a card network's numbers do, in a length which
 * that network uses, and whose last digit is right (Luhn).  Digits may be
 * ASCII, full-width, Arabic-Indic, Persian or Devanagari; spaces and dashes
 * may be Unicode's; each of these may be written as JSON's \uXXXX.
 *
 * Digits that are a part of something longer are none:
 * - next to a letter, an underscore or another digit (UUIDs, pi_3N..., hex);
 * - after a decimal point: 0.4242424242424242;
 * - up to 15 of them after a plus sign: a telephone number;
 * - in a UUID, of whatever digits it is made.
 * That is also the way out for a number which only looks like a card's:
 * order_4242424242424242 is never one, nor is 4242.4242.4242.4242.
 *
 * The text is bytes, of any length and in any state.  Nothing is allocated and
 * nothing can fail.  Time is linear in the length.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_CARD_NUMBER_H
#define SL_CARD_NUMBER_H

#include <stdbool.h>
#include <stddef.h>

#define SL_CARD_MIN_DIGITS 13
#define SL_CARD_MAX_DIGITS 19

/*
 * A text, or one that is written in hexadecimal digits, as bytea is: len
 * counts the bytes of the text, so 2 * len digits in the second case, none of
 * which may be anything else.
 */
typedef struct SlText
{
	const char *bytes;
	size_t		len;
	bool		hex;
} SlText;

/* The value of a hexadecimal digit; -1 if it is none. */
static inline int
sl_hex_value(int c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'))
		return (c | 0x20) - 'a' + 10;
	return -1;
}

/* Byte i of a text; -1 where there is none. */
static inline int
sl_text_byte(const SlText *text, size_t i)
{
	const unsigned char *bytes = (const unsigned char *) text->bytes;

	if (i >= text->len)
		return -1;
	if (text->hex)
		return sl_hex_value(bytes[2 * i]) << 4 | sl_hex_value(bytes[2 * i + 1]);
	return bytes[i];
}

/*
 * Finds the first card number at or after 'from', which is 0 or an earlier
 * *end.  Numbers that overlap are found as one.  False if there is none.
 */
extern bool sl_card_find(const SlText *text, size_t from,
						 size_t *start, size_t *end);

/* Is there one in these bytes? */
extern bool sl_card_is_in(const char *bytes, size_t len);

/*
 * How many bytes the character that begins with byte i has (an escape is one,
 * too), and whether it is a digit.  For walking from *start to *end.
 */
extern size_t sl_card_step(const SlText *text, size_t i, bool *is_digit);

#endif							/* SL_CARD_NUMBER_H */
