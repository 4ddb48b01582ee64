/*-------------------------------------------------------------------------
 *
 * secrets_status.c
 *	  SQL: which secrets are in the files, and what is wrong with them.
 *
 * Secrets are recognised by a fingerprint, the first 16 hexadecimal digits of
 * their SHA-256, which whoever holds one can compute as well:
 *
 *		printf %s whsec_... | sha256sum | cut -c 1-16
 *
 * They are random and long, so nothing can be computed back from it.  The key
 * for checkpoints is recognised by its public half, as it is in checkpoints.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "secrets.h"

PG_FUNCTION_INFO_V1(sl_secrets_status);

#define STATUS_COLUMNS 7

static Datum
text_or_null(const char *s, bool *isnull)
{
	*isnull = s == NULL || s[0] == '\0';
	return *isnull ? (Datum) 0 : CStringGetTextDatum(s);
}

/*
 * SQL: secrets_status() returns setof (kind, label, fingerprint, modified_at,
 * age, mode, problems), one row per secret.
 */
Datum
sl_secrets_status(PG_FUNCTION_ARGS)
{
	static const char *const kinds[] = {
		[SL_SECRET_API_KEY] = "api_key",
		[SL_SECRET_WEBHOOK] = "webhook",
		[SL_SECRET_CHECKPOINT] = "checkpoint"
	};
	static const char *const modes[] = {
		[SL_KEY_MODE_UNKNOWN] = NULL,
		[SL_KEY_TEST] = "test",
		[SL_KEY_LIVE] = "live"
	};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	SlSecretInfo infos[SL_MAX_SECRETS];
	Datum		now = TimestampTzGetDatum(GetCurrentTimestamp());
	int			n;
	int			i;

	sl_require_version();
	sl_init_materialized(fcinfo);
	n = sl_secrets_survey(infos);
	for (i = 0; i < n; i++)
	{
		const SlSecretInfo *info = &infos[i];
		Datum		modified = TimestampTzGetDatum(info->modified);
		Datum		values[STATUS_COLUMNS] = {0};
		bool		nulls[STATUS_COLUMNS] = {false};

		values[0] = CStringGetTextDatum(kinds[info->kind]);
		values[1] = text_or_null(info->label, &nulls[1]);
		values[2] = text_or_null(info->fingerprint, &nulls[2]);
		nulls[3] = nulls[4] = info->modified == 0;
		if (info->modified != 0)
		{
			values[3] = modified;
			values[4] = DirectFunctionCall2(timestamp_mi, now, modified);
		}
		values[5] = text_or_null(modes[info->mode], &nulls[5]);
		values[6] = text_or_null(info->problems, &nulls[6]);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
