/* Inside of the stand-in libnccl.so.2: what its files share.
 *
 * The ranks are processes of one host. They meet in a piece of shared memory (a memfd, opened
 * through /proc of the process that made the unique id, so nothing is left when all are gone).
 * Each rank holds a lock on its byte of that memfd; the kernel lets go of it when the process dies,
 * which is how the others see it. */
#ifndef APD_TESTS_EMU_STANDIN_NCCL_H
#define APD_TESTS_EMU_STANDIN_NCCL_H

#include "tests/emu/standin.h"

#include <nccl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum { MAX_RANKS = 16, CHUNK_BYTES = 1 << 18, MAIL_BYTES = 1 << 16 };

/* A rank within a communicator: only ever goes up. */
enum presence { ABSENT, JOINED, FINALIZED, GONE, ABORTED };

enum task_kind { ALL_REDUCE, BROADCAST, ALL_GATHER, SEND, RECV };

/* What a rank says it is doing; must be the same everywhere. */
struct descriptor {
    enum task_kind kind;
    ncclDataType_t type;
    ncclRedOp_t op;
    int root;
    uint64_t count;
    uint32_t sends[MAX_RANKS], recvs[MAX_RANKS]; /* messages begun before, to and from each */
};

/* How to open a piece of shared memory; fits an ncclUniqueId. */
struct meeting {
    char magic[16];
    int pid, fd;
    uint64_t cookie;
};

struct rank_area {
    _Atomic int presence;
    int pci_bus, size;
    /* Collectives: this rank's descriptor of collective k is description[k % 2], its data of round
     * i data[i % 2]; a collective takes one round a chunk. */
    _Atomic uint64_t begun, written, read;
    struct descriptor description[2];
    _Atomic uint32_t sends[MAX_RANKS], recvs[MAX_RANKS]; /* messages begun */
    /* Splits, by number % 2. */
    _Atomic uint32_t splits, leads;
    int color[2], key[2];
    struct meeting lead[2];
};

/* From one rank to another: one message after the other. */
struct mailbox {
    _Atomic uint32_t opened, taken; /* messages whose header is there; that are received */
    uint64_t bytes;
    ncclDataType_t type;
    _Atomic uint64_t written, read; /* bytes of all messages */
    char data[MAIL_BYTES];
};

struct shared {
    uint64_t cookie;
    struct rank_area rank[MAX_RANKS];
    struct mailbox mail[MAX_RANKS][MAX_RANKS]; /* [from][to] */
    char data[MAX_RANKS][2][CHUNK_BYTES];
};

struct task {
    enum task_kind kind;
    const void *send;
    void *recv;
    size_t count;
    ncclDataType_t type;
    ncclRedOp_t op;
    int peer; /* or root */
    /* of the execution that is going on */
    int begun, skipped, finished, is_written;
    uint32_t message;
    size_t bytes_done;
};

/* What one call, or the calls of a group, put on a stream. */
struct operation {
    struct ncclComm *comm;
    cudaStream_t stream;
    struct task *task;
    int tasks, running;
};

enum comm_state { SPLITTING, JOINING, READY, FINALIZING, DONE };

struct ncclComm {
    struct shared *shared;
    struct meeting meeting;
    int fd, rank, size, world_rank, blocking, device, pci_bus;
    enum comm_state state;
    int polls_left;             /* for which the call in progress stays so */
    struct operation *deferred; /* not in its stream yet */
    _Atomic int async;          /* ncclResult_t */
    _Atomic int aborted;
    int hung;
    _Atomic int operations; /* that live, in streams and graphs */
    _Atomic int freed;      /* by the caller; lives on until the last operation is gone */
    struct operation *current;
    uint32_t splits;
    struct ncclComm *parent; /* SPLITTING */
    uint32_t split;          /* number of */
};

/* Keeps the words for ncclGetLastError and returns status. */
ncclResult_t standin_nccl_fail(ncclResult_t status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Ends the process: the program under test is wrong. */
_Noreturn void standin_nccl_wrong(const struct ncclComm *comm, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

size_t standin_nccl_type_bytes(ncclDataType_t type); /* 0: unknown */

/* ---- life of a communicator (standin_nccl.c) ---- */
/* Whether an operation may come now; why not. */
ncclResult_t standin_nccl_ready(struct ncclComm *comm);
/* What a call returns that has begun something: blocking ones wait for its end. */
ncclResult_t standin_nccl_answer(struct ncclComm *comm);

/* ---- shared memory (standin_nccl_meet.c) ---- */
ncclResult_t standin_nccl_make_meeting(struct meeting *out);
ncclResult_t standin_nccl_open_meeting(struct ncclComm *comm);
ncclResult_t standin_nccl_join(struct ncclComm *comm);
void standin_nccl_close_meeting(struct ncclComm *comm);
/* JOINED and the process lives, or in order. */
int standin_nccl_is_alive(struct ncclComm *comm, int rank);
/* Sets comm->async once a peer has died or aborted. */
void standin_nccl_look_around(struct ncclComm *comm);

/* ---- operations (standin_nccl_run.c) ---- */
/* Whether this call, of a collective or of the end of a group, is to be refused. */
int standin_nccl_is_refused(const struct ncclComm *comm);
ncclResult_t standin_nccl_put(struct operation *operation);
void standin_nccl_free_operation(void *operation);

/* out[n] = sum over ranks, in their order. */
void standin_nccl_sum(ncclDataType_t type, void *out, const void *const *in, int ranks, size_t n);

#endif
