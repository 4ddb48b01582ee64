/*-------------------------------------------------------------------------
 *
 * slots.h
 *	  What shared memory knows about each database that may need a worker.
 *
 * Three parties meet here: backends that commit work (wake.c), the launcher
 * and the workers.  slots.c says how no wake is ever lost between them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_SLOTS_H
#define SL_SLOTS_H

#include "datatype/timestamp.h"

#define SL_NO_SLOT (-1)

/* What the launcher sees of one slot. */
typedef struct SlSlotView
{
	Oid			dboid;
	bool		running;		/* a worker has it */
	TimestampTz start_at;		/* when a worker is wanted; DT_NOEND: never */
} SlSlotView;

/* Why a worker leaves. */
typedef enum SlLeave
{
	SL_LEAVE_IDLE,
	SL_LEAVE_KEYLESS,			/* work waits, but there is no API key */
	SL_LEAVE_UNSERVED,			/* stripe_lifecycle.databases does not name it */
	SL_LEAVE_REPLACED,			/* the extension is another one than before */
	SL_LEAVE_ABSENT				/* the extension is not in this database */
} SlLeave;

/* from _PG_init */
extern void sl_slots_init(void);
extern bool sl_slots_ready(void);

/* any process */
extern int	sl_slot_reserve(Oid dboid);
extern int	sl_slot_find(Oid dboid);
extern void sl_slot_wake(int slot, Oid dboid);
extern void sl_slots_request_tour(void);

/* the launcher */
extern void sl_slots_launcher_attach(void);
extern bool sl_slots_launcher_alive(void);
extern uint32 sl_slots_reloads(void);
extern bool sl_slots_tour_requested(void);
extern void sl_slots_take_tour_request(void);
extern int	sl_slots_count(void);
extern void sl_slots_set_crowded(bool crowded);
extern bool sl_slots_crowded(void);
extern bool sl_slot_view(int slot, SlSlotView *view);
extern void sl_slot_launching(int slot, Oid dboid);
extern void sl_slot_launch_ended(int slot, Oid dboid);
extern void sl_slot_free(int slot, Oid dboid);
extern void sl_slots_configuration_reloaded(void);

/* the worker */
extern int	sl_slot_attach(Oid dboid, bool *already_served);
extern bool sl_slot_take_wake(int slot);
extern bool sl_slot_leave(int slot, TimestampTz next_due, SlLeave why,
						  uint32 reloads_seen);
extern bool sl_slot_may_warn_of_key(int slot);
extern bool sl_slot_may_warn_of_sealing(int slot);

#endif							/* SL_SLOTS_H */
