/*-------------------------------------------------------------------------
 *
 * webhook.h
 *	  Taking in one delivery of Stripe's, whoever hands it in.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_WEBHOOK_H
#define SL_WEBHOOK_H

#include "event_reader.h"
#include "rejections.h"
#include "signature.h"

typedef struct SlDelivery
{
	/* by whoever hands it in; NULL: there is none */
	const char *body;
	size_t		body_len;
	const char *header;
	size_t		header_len;
	bool		check_mode;		/* refuse what is of the other mode */

	/* what became of it */
	SlRefusal	refusal;		/* SL_NOT_REFUSED: then there is an outcome */
	const char *outcome;		/* constant storage */
	bool		verified;		/* its signature was good, and fresh */
	SlSigResult signature;		/* why not, if so */
	SlEventFlaw flaw;			/* of SL_REFUSED_BAD_EVENT */
	bool		has_time;		/* the header had one: */
	int64		time;
} SlDelivery;

/*
 * Verify, read and apply a delivery.  What is wrong with the delivery itself
 * is told by 'refusal' and writes nothing; whatever keeps the database from
 * taking in a good one (no secret, a lock, a read-only transaction) is raised.
 */
extern void sl_deliver(SlDelivery *delivery);

/* Counts a refusal and keeps it for operators. */
extern void sl_delivery_note_refusal(const SlDelivery *delivery,
									 SlRefusal refusal);

/* What an error that sl_deliver() raised means for the delivery. */
extern SlRefusal sl_refusal_of_error(int sqlerrcode);

/* The only mode that this server takes: "test", "live", or NULL for both. */
extern const char *sl_expected_mode(void);

#endif							/* SL_WEBHOOK_H */
