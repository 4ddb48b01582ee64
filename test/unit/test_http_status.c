/*-------------------------------------------------------------------------
 *
 * test_http_status.c
 *	  Every SQLSTATE gets the status it should, and none a success.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "http_status.h"

static void
test_table(void)
{
	static const struct
	{
		const char *sqlstate;
		int			status;		/* 0: none of ours */
		bool		retry;
	}			cases[] = {
		{"SL010", 422, false},
		{"SL011", 422, false},
		{"SL012", 422, false},
		{"SL013", 422, false},
		{"SL014", 422, false},
		{"SL015", 422, false},
		{"SL016", 409, false},
		{"SL017", 404, false},
		{"SL018", 409, false},
		{"SL019", 422, false},
		{"SL020", 503, true},
		{"SL050", 401, false},
		{"SL060", 429, false},
		{"25006", 503, true},	/* a standby */
		{"40001", 503, true},
		{"40P01", 503, true},	/* PostgREST would repeat it for ever */
		{"40XYZ", 503, true},
		{"53300", 503, true},
		{"55P03", 503, true},
		{"57014", 503, true},
		{"58030", 503, true},
		{"42501", 0, false},	/* 401 or 403, which PostgREST knows best */
		{"23505", 0, false},
		{"25001", 0, false},
		{"22P02", 0, false},
		{"P0001", 0, false},
		{"PT402", 0, false},
		{"XX000", 0, false},
		{"SL001", 0, false},
		{"SL0", 0, false},
		{"4", 0, false},
		{"", 0, false},
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(cases); i++)
	{
		const SlHttpStatus *s = sl_http_status(cases[i].sqlstate);

		unit_case("%s", cases[i].sqlstate);
		CHECK_INT(s == NULL ? 0 : s->status, cases[i].status);
		if (s != NULL)
			CHECK_INT(s->retry_after > 0, cases[i].retry);
	}
	unit_case(NULL);
}

/* Of every class, and every one of ours: no status that no error should have. */
static void
test_all(void)
{
	static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
	static const char *const ends[] = {"000", "001", "006", "014", "P01", "P03", "ZZZ"};
	char		code[8] = "";
	int			n;

	for (n = 0; n < 36 * 36 * 7 + 1000; n++)
	{
		const SlHttpStatus *s;

		if (n < 36 * 36 * 7)
			snprintf(code, sizeof(code), "%c%c%s", letters[n / 7 / 36],
					 letters[n / 7 % 36], ends[n % 7]);
		else
			snprintf(code, sizeof(code), "SL%03d", n - 36 * 36 * 7);
		s = sl_http_status(code);
		unit_case("%s", code);
		CHECK(s == NULL || (s->status >= 400 && s->status <= 599));
		CHECK(s == NULL || (s->status == 503) == (s->retry_after > 0));
	}
	unit_case(NULL);
}

int
main(void)
{
	test_table();
	test_all();
	return unit_done();
}
