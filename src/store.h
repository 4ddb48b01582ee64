/*-------------------------------------------------------------------------
 *
 * store.h
 *	  The extension's tables as C sees them: columns, rows, guarded writes.
 *
 * The enums below are the columns in the order of the install script.  All
 * functions need an open SPI connection unless they say otherwise.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_STORE_H
#define SL_STORE_H

#include "executor/spi.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "state_machine.h"

typedef enum SlTableId
{
	SL_PAYMENTS,
	SL_TRANSITIONS,
	SL_EVENTS,
	SL_REQUESTS,
	SL_ATTEMPTS,
	SL_ACTIONS,
	SL_IN_USE,
	SL_CHECKPOINTS,
	SL_TABLE_COUNT
} SlTableId;

#define SL_NO_TABLE ((SlTableId) -1)

typedef enum SlPaymentColumn
{
	PAY_ID, PAY_IDEMPOTENCY_KEY, PAY_STATE, PAY_AMOUNT, PAY_CURRENCY,
	PAY_DESCRIPTION, PAY_CUSTOMER, PAY_RECEIPT_EMAIL, PAY_CAPTURE_METHOD,
	PAY_DECLINE_POLICY, PAY_STRIPE_ACCOUNT, PAY_METADATA, PAY_PARAMS,
	PAY_PAYMENT_INTENT_ID, PAY_CLIENT_SECRET, PAY_LIVEMODE,
	PAY_AMOUNT_CAPTURABLE, PAY_AMOUNT_RECEIVED, PAY_LATEST_CHARGE,
	PAY_CANCELLATION_REASON, PAY_DECLINE_COUNT, PAY_LAST_ERROR,
	PAY_LAST_ERROR_AT, PAY_LAST_EVENT_ID, PAY_LAST_EVENT_CREATED,
	PAY_LAST_EVENT_RANK, PAY_TRANSITIONS, PAY_CREATED_AT, PAY_UPDATED_AT,
	PAY_FINISHED_AT, PAY_OWNER, PAY_AUDIT_HEAD,
	PAY_NCOLS
} SlPaymentColumn;

typedef enum SlTransitionColumn
{
	TRA_PAYMENT_ID, TRA_SEQ, TRA_FROM_STATE, TRA_TO_STATE, TRA_AT, TRA_SOURCE,
	TRA_EVENT_ID, TRA_EVENT_TYPE, TRA_EVENT_CREATED, TRA_ROLE, TRA_NOTE,
	TRA_AMOUNT, TRA_CURRENCY, TRA_LIVEMODE, TRA_HASH,
	TRA_NCOLS
} SlTransitionColumn;

typedef enum SlEventColumn
{
	EVT_EVENT_ID, EVT_TYPE, EVT_CREATED, EVT_LIVEMODE, EVT_API_VERSION,
	EVT_ACCOUNT, EVT_OBJECT_ID, EVT_PAYMENT_INTENT_ID, EVT_PAYMENT_ID,
	EVT_OUTCOME, EVT_REASON, EVT_SECRET_LABEL, EVT_SOURCE, EVT_RECEIVED_AT,
	EVT_APPLIED_AT, EVT_PAYLOAD,
	EVT_NCOLS
} SlEventColumn;

typedef enum SlRequestColumn
{
	REQ_ID, REQ_PAYMENT_ID, REQ_OPERATION, REQ_METHOD, REQ_PATH, REQ_BODY,
	REQ_IDEMPOTENCY_KEY, REQ_STRIPE_ACCOUNT, REQ_CREATED_AT, REQ_STATUS,
	REQ_ATTEMPTS, REQ_NEXT_ATTEMPT_AT, REQ_FIRST_SENT_AT, REQ_FINISHED_AT,
	REQ_HTTP_STATUS, REQ_STRIPE_REQUEST_ID, REQ_LAST_ERROR, REQ_LOOKUP_AT,
	REQ_LOOKUP_CURSOR, REQ_WATCH_AT, REQ_WATCH_NOTE,
	REQ_NCOLS
} SlRequestColumn;

typedef enum SlActionColumn
{
	ACT_ID, ACT_AT, ACT_ROLE, ACT_ACTION, ACT_REQUEST_ID, ACT_PAYMENT_ID,
	ACT_EVENT_ID, ACT_REASON,
	ACT_NCOLS
} SlActionColumn;

typedef enum SlCheckpointColumn
{
	CKP_NUMBER, CKP_TRAIL, CKP_FROM_POSITION, CKP_TO_POSITION, CKP_LEAVES,
	CKP_FIRST_AT, CKP_LAST_AT, CKP_SEALED_AT, CKP_ROOT, CKP_PREVIOUS,
	CKP_KEY, CKP_SIGNATURE,
	CKP_NCOLS
} SlCheckpointColumn;

#define SL_MAX_COLUMNS 40

/* Labels of event_outcome and request_status, in the order of the enums. */
typedef enum SlEventOutcome
{
	SL_EVENT_APPLIED,
	SL_EVENT_RECORDED,
	SL_EVENT_STALE,
	SL_EVENT_CONFLICT,
	SL_EVENT_UNMATCHED,
	SL_EVENT_IGNORED
} SlEventOutcome;

#define SL_EVENT_OUTCOME_COUNT 6

typedef enum SlRequestStatus
{
	SL_REQUEST_QUEUED,
	SL_REQUEST_IN_FLIGHT,
	SL_REQUEST_SUCCEEDED,
	SL_REQUEST_REJECTED,
	SL_REQUEST_UNKNOWN
} SlRequestStatus;

#define SL_REQUEST_STATUS_COUNT 5

/* A row, all columns in order; what it points to lives as its reader says. */
typedef struct SlRow
{
	Datum		values[SL_MAX_COLUMNS];
	bool		nulls[SL_MAX_COLUMNS];
} SlRow;

/* Arguments are evaluated twice, except the value. */
#define SET(row, col, datum) \
	((row)->values[col] = (datum), (row)->nulls[col] = false)
#define SET_NULL(row, col) \
	((row)->values[col] = (Datum) 0, (row)->nulls[col] = true)

/*
 * Leave to write one row, as the guard sees it.  It lives on the C stack of
 * the function that writes, only for as long as its statement runs.
 */
typedef struct SlPermit
{
	struct SlPermit *outer;
	SlTableId	table;
	bool		insert;
	const SlRow *row;			/* the row as it must end up */
	const SlRow *transition;	/* of a payment that is made or moved, its
								 * audit row; else NULL */
	bool		used;
} SlPermit;

/* A statement of constant text whose plan is kept. */
#define SL_QUERY_MAX_ARGS 10
typedef enum SlType
{
	SL_TYPE_END = 0,
	SL_TYPE_UUID, SL_TYPE_TEXT, SL_TYPE_INT2, SL_TYPE_INT4, SL_TYPE_INT8,
	SL_TYPE_BOOL, SL_TYPE_TIMESTAMPTZ, SL_TYPE_JSONB, SL_TYPE_FLOAT8,
	SL_TYPE_BYTEA,
	SL_TYPE_STATE, SL_TYPE_OUTCOME, SL_TYPE_STATUS
} SlType;

typedef struct SlQuery
{
	const char *sql;			/* a %s in it: all columns of the table below */
	SlTableId	columns_of;
	SlType		args[SL_QUERY_MAX_ARGS + 1];
	SPIPlanPtr	plan;			/* zero these two in static initialisers */
	uint64		generation;
} SlQuery;

/* Who the current user was; see sl_become_owner(). */
typedef struct SlSavedUser
{
	Oid			user;
	int			context;
} SlSavedUser;

extern void sl_act_as(Oid role);
extern Oid	sl_acting_role(void);
extern SlSavedUser sl_become_owner(Relation rel);
extern void sl_become_again(SlSavedUser saved);

extern const SlPermit *sl_current_permit(void);
extern void sl_permit_mark_used(void);

extern SlTableId sl_table_of_relation(Relation rel);
extern int	sl_table_ncols(SlTableId table);
extern const char *sl_table_name(SlTableId table);
extern bool sl_column_is_identity(SlTableId table, int column);
extern bool sl_column_is_immutable(SlTableId table, int column);

extern void sl_deform(Relation rel, SlTableId table, HeapTuple tuple, SlRow *row);

extern SlState sl_state_of_oid(Oid label);
extern Datum sl_state_datum(SlState state);
extern Datum sl_outcome_datum(SlEventOutcome outcome);
extern const char *sl_outcome_name(SlEventOutcome outcome);
extern Datum sl_status_datum(SlRequestStatus status);
extern SlRequestStatus sl_status_of_oid(Oid label);

extern int	sl_run(SlQuery *query, const Datum *values, const bool *nulls,
				   long limit);
extern int	sl_look(SlQuery *query, const Datum *values, const bool *nulls);
extern Portal sl_open(SlQuery *query, const Datum *values, const bool *nulls,
					  bool callers_snapshot);
extern void sl_read_row(SlTableId table, uint64 n, SlRow *row);
extern char *sl_text_column(HeapTuple tuple, TupleDesc desc, int attnum);
extern TimestampTz sl_time_column(HeapTuple tuple, TupleDesc desc, int attnum,
								  TimestampTz absent);
extern bool sl_lock_row(SlTableId table, int column, Datum key, SlQuery *query,
						SlRow *row);
extern bool sl_find_row(SlTableId table, int column, Datum key, SlQuery *query,
						SlRow *row);
extern bool sl_newest_value(SlTableId table, int column, Datum key, int wanted,
							SlQuery *query, Datum *value, bool *isnull);
extern bool sl_insert_row(SlTableId table, SlRow *row, const SlRow *transition);
extern bool sl_insert_new_row(SlTableId table, SlRow *row,
							  const SlRow *transition);
extern void sl_write_suppressed(SlTableId table);
extern void sl_update_row(SlTableId table, SlRow *row, const SlRow *transition);

/* rows that are too old, and may go */
extern void sl_run_removal(SlQuery *query, const Datum *values, TimestampTz limit);
extern TimestampTz sl_removal_limit(void);

extern void sl_note_in_use(void);
extern bool sl_in_use(void);
extern bool sl_marked_in_use(void);

#endif							/* SL_STORE_H */
