/*-------------------------------------------------------------------------
 *
 * shmem.c
 *	  Asks PostgreSQL for the shared memory and the locks of all rooms.
 *
 * Slots, statistics and pacing each have an area of their own and know nothing
 * of each other; what PostgreSQL's hooks want is done once, here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "compat.h"
#include "shmem.h"

static SlSharedArea *areas = NULL;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static void
shmem_request(void)
{
	SlSharedArea *area;

	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	for (area = areas; area != NULL; area = area->next)
	{
		RequestAddinShmemSpace(area->size());
		RequestNamedLWLockTranche(area->name, 1);
	}
}

/* Also after a crash, with memory that is new again. */
static void
shmem_startup(void)
{
	SlSharedArea *area;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	for (area = areas; area != NULL; area = area->next)
	{
		bool		found;
		void	   *memory = ShmemInitStruct(area->name, area->size(), &found);

		area->attach(memory, &(GetNamedLWLockTranche(area->name))->lock, !found);
	}
	LWLockRelease(AddinShmemInitLock);
}

/* Without preloading there is no shared memory: areas are never attached. */
void
sl_shared_area_add(SlSharedArea *area)
{
	if (areas == NULL)
	{
		prev_shmem_request_hook = shmem_request_hook;
		shmem_request_hook = shmem_request;
		prev_shmem_startup_hook = shmem_startup_hook;
		shmem_startup_hook = shmem_startup;
	}
	area->next = areas;
	areas = area;
}
