/*-------------------------------------------------------------------------
 *
 * redact_cost.c
 *	  What looking at a line of the log costs, and masking in it.
 *
 *	  bench/privacy cost
 *
 *-------------------------------------------------------------------------
 */
#include "redact.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* So long that a clock's resolution is no matter. */
#define WORK 40000000			/* bytes */
#define ROUNDS 7

static const struct
{
	const char *name;
	size_t		len;
	const char *unit;			/* repeated up to that length */
}			lines[] = {
	{"statement", 200, "duration: 0.412 ms  statement: SELECT id, state, amount, currency FROM stripe_lifecycle.payments WHERE id = '01890a5d-ac96-774b-bcce-b302099a8057' AND created_at > '2026-11-20 10:00:00+00' ORDER BY created_at; "},
	{"words", 200, "execute <unnamed>: INSERT INTO public.shop_orders (customer_id, note, status) VALUES ($1, $2, $3) RETURNING order_id, created_at, updated_at, total_amount "},
	{"statement", 10000, "SELECT id, state, amount, currency FROM stripe_lifecycle.payments WHERE id = '01890a5d-ac96-774b-bcce-b302099a8057' AND created_at > '2026-11-20 10:00:00+00'; "},
	{"bytea parameter", 10000, "7b226964223a20226576745f31222c20226f626a656374223a20226576656e74227d"},
	{"numbers, one after another", 10000, "1234 567890 12 "},
	{"something to mask", 200, "parameters: $1 = 'order 42', $2 = '4242 4242 4242 4242', $3 = 'pi_3Mt_secret_YrKJUKribcBjcG8HVhfZ', $4 = 'sk_live_" "51HabcdefghijklmnopQRS', $5 = 'whsec_MfKQ9r8GKYqrTwjUPD8', "}
};

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static int
compare(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return x < y ? -1 : x > y;
}

int
main(void)
{
	size_t		i;

	printf("%-28s %8s %12s %10s %8s\n", "line", "bytes", "ns per line", "ns per B", "masked");
	for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
	{
		size_t		len = lines[i].len;
		char	   *line = malloc(len);
		char	   *work = malloc(len);
		double		times[ROUNDS];
		size_t		masked = 0;
		size_t		j;
		int			round;

		for (j = 0; j < len; j++)
			line[j] = lines[i].unit[j % strlen(lines[i].unit)];
		if (lines[i].unit[0] == '7')
			memcpy(line, "$1 = '\\x", 8);
		for (round = 0; round < ROUNDS; round++)
		{
			size_t		n = WORK / len / ROUNDS;
			double		start = now();

			for (j = 0; j < n; j++)
			{
				memcpy(work, line, len);
				masked = sl_redact(work, len, false);
			}
			times[round] = (now() - start) / n;
		}
		qsort(times, ROUNDS, sizeof(double), compare);
		printf("%-28s %8zu %12.0f %10.2f %8zu\n", lines[i].name, len,
			   times[ROUNDS / 2], times[ROUNDS / 2] / len, masked);
		free(line);
		free(work);
	}
	return 0;
}
