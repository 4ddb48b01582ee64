/*-------------------------------------------------------------------------
 *
 * export_judge.h
 *	  Judges an export of the audit trail: by itself, by public keys, and by
 *	  what server logs have of its checkpoints.
 *
 * What is wrong is reported as soon as it is seen, a line of text each, in
 * which nothing stands that the input could have chosen.  Memory does not grow
 * with the export.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_EXPORT_JUDGE_H
#define SL_EXPORT_JUDGE_H

#include "checkpoint.h"
#include "checkpoint_key.h"
#include "export_reader.h"
#include "log_index.h"

/* Is told of each problem; the text is valid only meanwhile. */
typedef void (*SlProblemReport) (void *arg, const char *problem);

typedef struct SlExportJudge SlExportJudge;

/*
 * Begins.  log may be NULL, or a sorted index; trail may be NULL, or the id of
 * the trail that it has to be.  All of them are referenced until the end.  NULL
 * without memory or SHA-256.  Free it.
 */
extern SlExportJudge *sl_export_judge_new(const SlKeyRing *ring, SlLogIndex *log,
										  const unsigned char *trail,
										  SlProblemReport report, void *arg);
extern void sl_export_judge_free(SlExportJudge *judge);

/*
 * The next record.  False: it is none that an export has in this place, and
 * *error, a constant, says why; nothing can be said of what follows.
 */
extern bool sl_export_judge_record(SlExportJudge *judge,
								   const SlExportRecord *record,
								   const char **error);

/* There is nothing more. */
extern void sl_export_judge_end(SlExportJudge *judge);

/* What there was. */
extern int64_t sl_export_judge_checkpoints(const SlExportJudge *judge);
extern int64_t sl_export_judge_transitions(const SlExportJudge *judge);
extern int64_t sl_export_judge_unsealed(const SlExportJudge *judge);
extern int64_t sl_export_judge_not_logged(const SlExportJudge *judge);
extern int64_t sl_export_judge_first(const SlExportJudge *judge);

/* The last checkpoint; NULL if there was none. */
extern const SlCheckpoint *sl_export_judge_last(const SlExportJudge *judge);

/* The checkpoints of a sorted log by themselves; trail NULL: of all trails. */
extern void sl_judge_log(SlLogIndex *log, const unsigned char *trail,
						 SlProblemReport report, void *arg);

#endif							/* SL_EXPORT_JUDGE_H */
