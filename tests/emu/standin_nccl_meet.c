/* The shared memory of the stand-in libnccl.so.2 and who is there. */
#include "tests/emu/standin_nccl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static const char magic[16] = "standin nccl";

/* The memfd stays open in the process that made it: others open it through /proc. */
ncclResult_t standin_nccl_make_meeting(struct meeting *out)
{
    struct meeting meeting = {.pid = (int)getpid()};

    memcpy(meeting.magic, magic, sizeof magic);
    if (getrandom(&meeting.cookie, sizeof meeting.cookie, 0) != sizeof meeting.cookie)
        return standin_nccl_fail(ncclSystemError, "getrandom: %s", strerror(errno));
    meeting.fd = memfd_create("standin-nccl", MFD_CLOEXEC);
    if (meeting.fd < 0 || ftruncate(meeting.fd, sizeof(struct shared)) != 0 ||
        pwrite(meeting.fd, &meeting.cookie, sizeof meeting.cookie, 0) != sizeof meeting.cookie)
        return standin_nccl_fail(ncclSystemError, "memfd: %s", strerror(errno));
    *out = meeting;
    return ncclSuccess;
}

static struct flock lock_of(int rank)
{
    return (struct flock){
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = rank, .l_len = 1, .l_pid = 0};
}

ncclResult_t standin_nccl_open_meeting(struct ncclComm *comm)
{
    struct flock lock = lock_of(comm->rank);
    char path[64];

    if (memcmp(comm->meeting.magic, magic, sizeof magic) != 0)
        return standin_nccl_fail(ncclInvalidArgument, "not a unique id of this NCCL");
    snprintf(path, sizeof path, "/proc/%d/fd/%d", comm->meeting.pid, comm->meeting.fd);
    comm->fd = open(path, O_RDWR | O_CLOEXEC);
    if (comm->fd < 0)
        return standin_nccl_fail(ncclSystemError, "who made the unique id is gone: %s",
                                 strerror(errno));
    comm->shared =
        mmap(NULL, sizeof *comm->shared, PROT_READ | PROT_WRITE, MAP_SHARED, comm->fd, 0);
    if (comm->shared == MAP_FAILED) {
        comm->shared = NULL;
        return standin_nccl_fail(ncclSystemError, "mmap: %s", strerror(errno));
    }
    if (comm->shared->cookie != comm->meeting.cookie)
        return standin_nccl_fail(ncclSystemError, "the unique id is out of date");
    if (fcntl(comm->fd, F_OFD_SETLK, &lock) != 0)
        return standin_nccl_fail(ncclInvalidUsage, "rank %d is there already", comm->rank);
    comm->shared->rank[comm->rank].pci_bus = comm->pci_bus;
    comm->shared->rank[comm->rank].size = comm->size;
    atomic_store(&comm->shared->rank[comm->rank].presence, JOINED);
    return ncclSuccess;
}

/* ncclInProgress until all have come. */
ncclResult_t standin_nccl_join(struct ncclComm *comm)
{
    struct rank_area *area = comm->shared->rank;

    for (int r = 0; r < comm->size; r++) {
        if (atomic_load(&area[r].presence) == ABSENT)
            return ncclInProgress;
        if (area[r].size != comm->size)
            return standin_nccl_fail(ncclInvalidUsage, "rank %d says %d ranks, rank %d says %d", r,
                                     area[r].size, comm->rank, comm->size);
        for (int s = 0; s < r; s++)
            if (area[s].pci_bus == area[r].pci_bus)
                return standin_nccl_fail(
                    ncclInvalidUsage,
                    "Duplicate GPU detected : rank %d and rank %d both on CUDA device %x000\n", s,
                    r, area[r].pci_bus);
    }
    return ncclSuccess;
}

void standin_nccl_close_meeting(struct ncclComm *comm)
{
    if (comm->shared != NULL)
        munmap(comm->shared, sizeof *comm->shared);
    if (comm->fd >= 0)
        close(comm->fd);
    if (comm->meeting.pid == getpid() && comm->rank == 0)
        close(comm->meeting.fd);
    comm->shared = NULL;
    comm->fd = -1;
}

int standin_nccl_is_alive(struct ncclComm *comm, int rank)
{
    struct flock lock = lock_of(rank);
    int presence = atomic_load(&comm->shared->rank[rank].presence);

    if (rank == comm->rank || presence != JOINED)
        return presence != ABORTED; /* who has not come yet may still come */
    if (fcntl(comm->fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK)
        return 1;
    /* It may have left in order in between. */
    presence = atomic_load(&comm->shared->rank[rank].presence);
    return presence == FINALIZED || presence == GONE;
}

void standin_nccl_look_around(struct ncclComm *comm)
{
    if (comm->shared == NULL || atomic_load(&comm->async) != ncclSuccess)
        return;
    for (int r = 0; r < comm->size; r++)
        if (!standin_nccl_is_alive(comm, r)) {
            (void)standin_nccl_fail(ncclRemoteError, "rank %d of %d closed the connection", r,
                                    comm->size);
            atomic_store(&comm->async, ncclRemoteError);
        }
}
