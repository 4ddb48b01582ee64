/*-------------------------------------------------------------------------
 *
 * fuzz_redact.c
 *	  Arbitrary text against the masking of what must not be logged.
 *
 * Input: a byte of options, then text.  Whatever the text is: what is asked
 * for and what is done agree, a second time nothing is left to do, only
 * asterisks are written (in hexadecimal digits, theirs), and no card number
 * and nothing that begins as a key or secret does is left.
 *
 *-------------------------------------------------------------------------
 */
#include "redact.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "card_number.h"

/* Unlike assert(), never compiled away. */
#define REQUIRE(condition) \
	do { \
		if (!(condition)) \
		{ \
			fprintf(stderr, "%s:%d: not true: %s\n", \
					__FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool
is_alnum(int c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Is marker, with no letter, digit or underscore before it, followed by one? */
static bool
has_secret(const char *text, size_t len, const char *marker, bool begins)
{
	size_t		n = strlen(marker);
	size_t		i;

	for (i = 0; i + n < len; i++)
		if (memcmp(text + i, marker, n) == 0 && is_alnum(text[i + n]) &&
			(!begins || i == 0 || !(is_alnum(text[i - 1]) || text[i - 1] == '_')))
			return true;
	return false;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	bool		cut_lines;
	char	   *text;
	char	   *once;
	size_t		found;
	size_t		i;

	if (size == 0)
		return 0;
	cut_lines = data[0] % 2 != 0;
	size--;
	text = malloc(size > 0 ? size : 1);
	once = malloc(size > 0 ? size : 1);
	memcpy(text, data + 1, size);
	memcpy(once, data + 1, size);

	found = sl_redact(once, size, cut_lines);
	REQUIRE((memcmp(text, once, size) != 0) == (found > 0));
	if (!cut_lines)
		REQUIRE(sl_redact_finds(text, size) == (found > 0));
	REQUIRE(!sl_redact_finds(once, size));
	for (i = 0; i < size; i++)
		REQUIRE(once[i] == text[i] || once[i] == '*' ||
				(once[i] == '2' || once[i] == 'a'));

	REQUIRE(!sl_card_is_in(once, size));
	REQUIRE(!has_secret(once, size, "whsec_", false));
	REQUIRE(!has_secret(once, size, "sk_live_", true));
	REQUIRE(!has_secret(once, size, "rk_test_", true));

	memcpy(text, once, size);
	REQUIRE(sl_redact(once, size, cut_lines) == 0);
	REQUIRE(memcmp(text, once, size) == 0);

	memcpy(text, data + 1, size);
	found = sl_redact_cards(text, size);
	REQUIRE((memcmp(text, data + 1, size) != 0) == (found > 0));
	REQUIRE(sl_redact_cards(text, size) == 0);

	free(text);
	free(once);
	return 0;
}
