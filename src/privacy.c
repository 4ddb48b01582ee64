/*-------------------------------------------------------------------------
 *
 * privacy.c
 *	  Refuses card numbers in what callers hand in, and masks them in what
 *	  Stripe says before it is stored.
 *
 * A caller can mend his call, and hears what is wrong.  An event cannot be
 * had otherwise, so nothing in it may be a reason to lose it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/numeric.h"

#include "card_number.h"
#include "errors.h"
#include "privacy.h"
#include "redact.h"

/*
 * The error goes to the log without the statement and without a context that
 * may quote it, wherever the value came from.
 */
static void
refuse(const char *what, const char *name, const char *where)
{
	ereport(ERROR,
			(errcode(SL_ERRCODE_CARD_DATA),
			 errmsg("%s \"%s\" must not contain a card number", what, name),
			 where == NULL ? 0 : errdetail("It is in %s.", where),
			 errhint("Let Stripe's own form collect the card.  If it is another kind of number, let a letter or an underscore touch it, as in order_1234."),
			 errhidestmt(true),
			 errhidecontext(true)));
}

void
sl_refuse_card_text(const char *what, const char *name, const text *value)
{
	if (sl_card_is_in(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value)))
		refuse(what, name, NULL);
}

static bool
is_in_scalar(const JsonbValue *v)
{
	char	   *number;
	bool		found;

	if (v->type == jbvString)
		return sl_card_is_in(v->val.string.val, v->val.string.len);
	if (v->type != jbvNumeric)
		return false;
	number = DatumGetCString(DirectFunctionCall1(numeric_out,
												 NumericGetDatum(v->val.numeric)));
	found = sl_card_is_in(number, strlen(number));
	pfree(number);
	return found;
}

void
sl_refuse_card_jsonb(const char *what, const char *name, Jsonb *value)
{
	JsonbIterator *it = JsonbIteratorInit(&value->root);
	JsonbIteratorToken token;
	JsonbValue	v;

	while ((token = JsonbIteratorNext(&it, &v, false)) != WJB_DONE)
	{
		if (token == WJB_KEY && is_in_scalar(&v))
			refuse(what, name, "a key");
		if ((token == WJB_VALUE || token == WJB_ELEM) && is_in_scalar(&v))
			refuse(what, name, "a value");
	}
}

char *
sl_redacted(const char *s)
{
	char	   *copy;

	if (s == NULL)
		return NULL;
	copy = pstrdup(s);
	(void) sl_redact(copy, strlen(copy), false);
	return copy;
}

char *
sl_without_cards(const char *s, int len)
{
	char	   *copy = pnstrdup(s, len);

	(void) sl_redact_cards(copy, strlen(copy));
	return copy;
}
