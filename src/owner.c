/*-------------------------------------------------------------------------
 *
 * owner.c
 *	  Separates the customers behind a web gateway from each other.
 *
 * All customers of a gateway such as PostgREST share one database role; what
 * tells them apart is a claim of their token, which the gateway verifies and
 * puts into the setting request.jwt.claims.  With stripe_lifecycle.owner_claim
 * set, that claim owns the payments it creates, and a request sees those of
 * its own owner and no others.
 *
 * This separates customers who reach the database through a gateway only.  A
 * session that can run SQL of its own can write into request.jwt.claims what
 * it likes, so there is nothing to be gained by keeping such a session from
 * what it sees: calls outside of a request, which are those of an application
 * that has separated its customers itself, see every payment.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/numeric.h"

#include "compat.h"
#include "event_reader.h"
#include "guc.h"
#include "owner.h"
#include "store.h"

#define MAX_OWNER_LENGTH 255	/* characters */

static SlQuery payment_by_id = {
	.sql = "SELECT %s FROM stripe_lifecycle.payments"
	" WHERE id OPERATOR(pg_catalog.=) $1",
	.columns_of = SL_PAYMENTS,
	.args = {SL_TYPE_UUID},
};

/* A setting that exists once somebody has set it; NULL if it is empty. */
static const char *
request_setting(const char *name)
{
	const char *value = GetConfigOption(name, true, false);

	return value == NULL || value[0] == '\0' ? NULL : value;
}

/*
 * A gateway sets all of these; an old one spells the claims otherwise, and
 * must not pass for no gateway because of that.
 */
static bool
in_request(void)
{
	return request_setting("request.jwt.claims") != NULL ||
		request_setting("request.method") != NULL ||
		request_setting("request.path") != NULL ||
		request_setting("request.headers") != NULL;
}

/* The claim as text, palloc'd; NULL if it names nobody. */
static char *
read_claim(const char *claims, const char *name)
{
	bool		ok;
	Jsonb	   *parsed = sl_json_parse(claims, strlen(claims), &ok);
	JsonbValue	buf;
	JsonbValue *v;
	char	   *owner;
	int			length;

	if (!ok)
		return NULL;
	v = getKeyJsonValueFromContainer(&parsed->root, name, strlen(name), &buf);
	if (v != NULL && v->type == jbvNumeric)
		owner = DatumGetCString(DirectFunctionCall1(numeric_out,
													NumericGetDatum(v->val.numeric)));
	else if (v != NULL && v->type == jbvString)
		owner = pnstrdup(v->val.string.val, v->val.string.len);
	else
		return NULL;
	length = pg_mbstrlen(owner);
	return length >= 1 && length <= MAX_OWNER_LENGTH ? owner : NULL;
}

/* Who asks?  Costs nothing while owners are not in use. */
void
sl_caller_read(SlCaller *caller)
{
	const char *claims;

	caller->owner = NULL;
	caller->separated = sl_owner_claim[0] != '\0' && in_request();
	if (!caller->separated)
		return;
	claims = request_setting("request.jwt.claims");
	if (claims != NULL)
		caller->owner = read_claim(claims, sl_owner_claim);
}

/*
 * Does the payment exist for this caller?  A request that names nobody sees
 * the payments that are nobody's.  Owners don't change, so the answer holds
 * for as long as the payment does.
 */
bool
sl_caller_may_see(const SlCaller *caller, const pg_uuid_t *payment)
{
	SlRow		row;

	if (!caller->separated)
		return true;
	if (!sl_find_row(SL_PAYMENTS, PAY_ID, UUIDPGetDatum(payment), &payment_by_id,
					 &row))
		return false;
	if (row.nulls[PAY_OWNER] || caller->owner == NULL)
		return row.nulls[PAY_OWNER] && caller->owner == NULL;
	return strcmp(TextDatumGetCString(row.values[PAY_OWNER]), caller->owner) == 0;
}
