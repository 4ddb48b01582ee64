/*-------------------------------------------------------------------------
 *
 * identity.c
 *	  May this server send for this database, or is it a copy?
 *
 * A copy has the same queue as its original, and would send it a second time.
 * So whoever first sends anything leaves its name in worker_state: the
 * server's system identifier, which initdb makes up, and the OID of the
 * database.  A restored dump finds another system identifier or OID there, a
 * database made with CREATE DATABASE ... TEMPLATE another OID.  Then the worker
 * pauses the database and sends nothing, until resume_worker() writes the new
 * name over the old one.  A database that has never sent anything has no name,
 * so one that was made for others to be copied from can have the extension;
 * but what comes from a dump is paused in any case, and so is a subscriber of
 * logical replication.
 *
 * A promoted standby must go on by itself, and PostgreSQL cannot tell it from a
 * physical copy that somebody starts elsewhere.  Host, port and timeline
 * change in both cases.  They are recorded, for health() to show, and pause the
 * database too if stripe_lifecycle.pause_on_move says so.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xlog.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "errors.h"
#include "guc.h"
#include "identity.h"
#include "replication.h"
#include "store.h"

#define SL_HOST_MAX 256

typedef struct Identity
{
	char		system[32];		/* "": unknown */
	int64		database;
	char		host[SL_HOST_MAX];	/* "": unknown */
	int			port;
	int			timeline;
} Identity;

/* The one row of worker_state. */
typedef struct State
{
	bool		paused;
	char	   *reason;			/* or NULL */
	Identity	last;			/* who sent something last */
	char	   *version;		/* of the row */
} State;

/* Columns of read_state, from 1. */
enum
{
	COL_PAUSED = 1, COL_REASON, COL_SYSTEM, COL_DATABASE, COL_HOST, COL_PORT,
	COL_TIMELINE, COL_VERSION
};

static SlQuery read_state = {
	.sql = "SELECT paused, paused_reason, system_identifier, database_oid::int8,"
	" host, port, timeline, xmin::text FROM stripe_lifecycle.worker_state",
};

/* Not what an operator has written since: it could be a resume_worker(). */
static SlQuery pause_here = {
	.sql = "UPDATE stripe_lifecycle.worker_state SET paused = true,"
	" paused_reason = $1, paused_by = $2, paused_at = $3"
	" WHERE xmin::text OPERATOR(pg_catalog.=) $4",
	.args = {SL_TYPE_TEXT, SL_TYPE_TEXT, SL_TYPE_TIMESTAMPTZ, SL_TYPE_TEXT},
};

static SlQuery unused_requests = {
	.sql = "SELECT 1 FROM stripe_lifecycle.api_requests"
	" WHERE NOT EXISTS (SELECT FROM stripe_lifecycle.in_use)",
};

/* The place it was in before stays on record until an operator has seen it. */
static SlQuery note_serving = {
	.sql = "UPDATE stripe_lifecycle.worker_state SET system_identifier = $1,"
	" database_oid = $2::oid, host = $3, port = $4, timeline = $5, served_at = $6,"
	" moved_from = coalesce($7, moved_from),"
	" moved_at = CASE WHEN $7 IS NULL THEN moved_at ELSE $6 END",
	.args = {
		SL_TYPE_TEXT, SL_TYPE_INT8, SL_TYPE_TEXT, SL_TYPE_INT4, SL_TYPE_INT4,
		SL_TYPE_TIMESTAMPTZ, SL_TYPE_TEXT
	},
};

/* Who we are. */
static void
identify(Identity *id)
{
	memset(id, 0, sizeof(*id));
	snprintf(id->system, sizeof(id->system), INT64_FORMAT,
			 (int64) GetSystemIdentifier());
	id->database = MyDatabaseId;
	if (gethostname(id->host, sizeof(id->host) - 1) != 0)
		id->host[0] = '\0';
	id->port = PostPortNumber;
	id->timeline = (int) GetWALInsertionTimeLine();
}

static Datum
state_column(int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column,
						 isnull);
}

static char *
state_text(int column)
{
	bool		isnull;
	Datum		d = state_column(column, &isnull);

	return isnull ? NULL : TextDatumGetCString(d);
}

static void
look_at_state(State *state)
{
	const char *text;
	bool		isnull;
	Datum		d;

	memset(state, 0, sizeof(*state));
	if (sl_run(&read_state, NULL, NULL, 1) == 0)
		ereport(ERROR,
				(errcode(SL_ERRCODE_GUARD_BYPASSED),
				 errmsg("table \"%s.worker_state\" has lost its row", SL_SCHEMA),
				 errhint("INSERT INTO %s.worker_state DEFAULT VALUES.", SL_SCHEMA)));
	state->paused = DatumGetBool(state_column(COL_PAUSED, &isnull));
	state->reason = state_text(COL_REASON);
	state->version = state_text(COL_VERSION);
	if ((text = state_text(COL_SYSTEM)) != NULL)
		strlcpy(state->last.system, text, sizeof(state->last.system));
	if ((text = state_text(COL_HOST)) != NULL)
		strlcpy(state->last.host, text, sizeof(state->last.host));

	/* these are 0 where there is none */
	d = state_column(COL_DATABASE, &isnull);
	state->last.database = isnull ? 0 : DatumGetInt64(d);
	d = state_column(COL_PORT, &isnull);
	state->last.port = isnull ? 0 : DatumGetInt32(d);
	d = state_column(COL_TIMELINE, &isnull);
	state->last.timeline = isnull ? 0 : DatumGetInt32(d);
}

static bool
is_copy(const Identity *last, const Identity *now)
{
	return last->system[0] != '\0' &&
		(strcmp(last->system, now->system) != 0 || last->database != now->database);
}

static bool
has_moved(const Identity *last, const Identity *now)
{
	return (last->host[0] != '\0' && strcmp(last->host, now->host) != 0) ||
		(last->port != 0 && last->port != now->port) ||
		(last->timeline != 0 && last->timeline != now->timeline);
}

static char *
copy_reason(const Identity *last)
{
	return psprintf("this is a copy of database " INT64_FORMAT " of system %s, from which payments were sent",
					last->database, last->system);
}

/* As far as it is known: "host a, port 5432, timeline 1". */
static char *
place_text(const Identity *id)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "host %s", id->host[0] == '\0' ? "unknown" : id->host);
	if (id->port != 0)
		appendStringInfo(&buf, ", port %d", id->port);
	if (id->timeline != 0)
		appendStringInfo(&buf, ", timeline %d", id->timeline);
	return buf.data;
}

/* False: the row is not what it was, and has to be looked at again. */
static bool
pause_quietly(const State *state, const char *reason)
{
	Datum		args[4] = {CStringGetTextDatum(reason),
		CStringGetTextDatum(GetUserNameFromId(sl_acting_role(), false)),
		TimestampTzGetDatum(GetCurrentTimestamp()),
	CStringGetTextDatum(state->version)};

	return sl_run(&pause_here, args, NULL, 0) > 0;
}

/* Nothing is sent from now on; said once, for the next look finds it paused. */
static bool
pause_with(const State *state, const char *reason)
{
	if (!pause_quietly(state, reason))
		return false;
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("stripe_lifecycle has paused this database, so nothing is sent to Stripe"),
			 errdetail_internal("The reason is that %s.", reason),
			 errhint("If payments are to be sent from here, call stripe_lifecycle.resume_worker().")));
	return true;
}

/* Why the worker should pause the database, or NULL. */
static const char *
reason_to_pause(const Identity *last, const Identity *now)
{
	if (is_copy(last, now))
		return copy_reason(last);
	if (sl_is_subscribed(get_relname_relid("api_requests", sl_catalog()->schema)))
		return "its requests come from another server by logical replication";
	/* past guards that were off, as those of pg_restore --disable-triggers are */
	if (!sl_in_use() && sl_run(&unused_requests, NULL, NULL, 1) > 0)
		return "its requests were restored from a dump";
	if (sl_pause_on_move && has_moved(last, now))
		return psprintf("the worker ran last at %s and is now at %s",
						place_text(last), place_text(now));
	return NULL;
}

/*
 * May the worker send what is queued here?  It pauses the database if this is
 * not where its queue comes from; the caller commits that.  *known: our name is
 * there already.
 */
bool
sl_may_send(bool *known)
{
	const char *reason;
	State		state;
	Identity	now;
	int			tries;

	*known = false;
	identify(&now);
	for (tries = 0; tries < 3; tries++)
	{
		look_at_state(&state);
		if (state.paused)
			return false;
		reason = reason_to_pause(&state.last, &now);
		if (reason == NULL)
		{
			*known = state.last.system[0] != '\0' && state.last.host[0] != '\0' &&
				state.last.port != 0 && state.last.timeline != 0 &&
				!has_moved(&state.last, &now);
			return true;
		}
		if (pause_with(&state, reason))
			break;
	}
	return false;
}

/*
 * Leave our name here: in the transaction of a worker's first claim, so that it
 * is on disk before anything is sent.
 */
void
sl_note_serving(void)
{
	State		state;
	Identity	now;
	Datum		args[7];
	bool		nulls[7] = {false};

	look_at_state(&state);
	identify(&now);
	args[0] = CStringGetTextDatum(now.system);
	args[1] = Int64GetDatum(now.database);
	args[2] = CStringGetTextDatum(now.host);
	args[3] = Int32GetDatum(now.port);
	args[4] = Int32GetDatum(now.timeline);
	args[5] = TimestampTzGetDatum(GetCurrentTimestamp());
	nulls[6] = !has_moved(&state.last, &now);
	args[6] = nulls[6] ? (Datum) 0 : CStringGetTextDatum(place_text(&state.last));
	(void) sl_run(&note_serving, args, nulls, 0);
}

/*
 * May the audit trail be sealed here?  A pause keeps nobody from that, since
 * nothing leaves the server; but what is not the original must not continue
 * its checkpoints: there would be two of one number.  Whoever seals is the
 * original from then on, and leaves its name if none is there.
 */
bool
sl_may_seal(void)
{
	State		state;
	Identity	now;

	if (!sl_in_use() ||
		sl_is_subscribed(get_relname_relid("payment_transitions", sl_catalog()->schema)))
		return false;
	look_at_state(&state);
	identify(&now);
	if (is_copy(&state.last, &now) ||
		(sl_pause_on_move && has_moved(&state.last, &now)))
		return false;
	if (state.last.system[0] == '\0')
		sl_note_serving();
	return true;
}

/*
 * Rows of a dump are coming in.  Where the row of worker_state that comes with
 * them does not tell the copy from its original (see replace_worker_state()),
 * or is not there yet, a worker would send what is queued a second time.
 */
void
sl_pause_restored(void)
{
	State		state;
	Identity	now;

	look_at_state(&state);
	identify(&now);
	if (!state.paused && !is_copy(&state.last, &now))
		(void) pause_quietly(&state, "restored from a dump");
}

/*
 * Whoever queues something hears that it is not sent: one row to look at.  A
 * copy is known for one before its worker has come to see it.
 */
void
sl_warn_if_paused(void)
{
	State		state;
	Identity	now;

	look_at_state(&state);
	if (!state.paused)
	{
		identify(&now);
		if (!is_copy(&state.last, &now))
			return;
		state.reason = copy_reason(&state.last);
	}
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("stripe_lifecycle is paused in this database, so nothing is sent to Stripe"),
			 state.reason == NULL ? errdetail("What is queued waits.") :
			 errdetail("What is queued waits; the reason given is: %s.", state.reason),
			 errhint("An operator can call stripe_lifecycle.resume_worker().")));
}
