/* Errors: one scheme for the whole project.
 *
 * Every function that can fail returns an apd_code and takes `struct apd_err *err` last. The
 * function that detects the failure writes the facts (file, offset, rank, expected, found) with
 * apd_fail(); callers may put context in front with apd_prefix(); nobody logs on the way up; the
 * edge of the program logs once and acts. The code says what has to be thrown away. */
#ifndef APD_BASE_ERR_H
#define APD_BASE_ERR_H

enum apd_code {
    APD_OK = 0,
    APD_CONFIG,   /* do not start: the configuration is wrong */
    APD_USAGE,    /* do not start: the command line is wrong */
    APD_DATA,     /* this file, sample or shard */
    APD_IO,       /* this input or output; errno is in err->sys */
    APD_NOMEM,    /* this allocation */
    APD_DEVICE,   /* this worker's device */
    APD_PEER,     /* this communicator: a peer is gone */
    APD_TIMEOUT,  /* this wait */
    APD_PROTO,    /* this connection */
    APD_CANCELED, /* nothing: somebody asked us to stop */
    APD_BUG,      /* everything: our own mistake */
};

struct apd_err {
    enum apd_code code;
    int sys; /* errno or vendor status, 0 if none */
    char msg[512];
};

#define APD_MUST_USE __attribute__((warn_unused_result))

/* Writes the facts and returns `code`. Keeps errno in err->sys for APD_IO. `err` must not be NULL.
 */
enum apd_code apd_fail(struct apd_err *err, enum apd_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Like apd_fail(APD_IO) and appends ": " strerror(errno). */
enum apd_code apd_fail_errno(struct apd_err *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Puts context in front of the message already in *err ("reading run.yaml: ..."); returns
 * err->code. */
enum apd_code apd_prefix(struct apd_err *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

const char *apd_code_name(enum apd_code code);

/* Exit status of a program that ends with `code` (sysexits; docs/design.md "Exit codes"). */
int apd_exit_status(enum apd_code code);

enum {
    APD_EXIT_DONE = 0,
    APD_EXIT_USAGE = 64,
    APD_EXIT_DATA = 65,
    APD_EXIT_UNAVAILABLE = 69,
    APD_EXIT_INTERNAL = 70,
    APD_EXIT_RESTART = 75, /* stopped before the end: the same command goes on */
    APD_EXIT_CONFIG = 78,
};

/* Returns the status on failure; for functions that hold nothing yet. */
#define APD_TRY(call)                                                                              \
    do {                                                                                           \
        enum apd_code apd_try_code_ = (call);                                                      \
        if (apd_try_code_ != APD_OK)                                                               \
            return apd_try_code_;                                                                  \
    } while (0)

/* Jumps to `done` on failure, leaving the status in `rc`; for functions that hold something. */
#define APD_GO(call)                                                                               \
    do {                                                                                           \
        rc = (call);                                                                               \
        if (rc != APD_OK)                                                                          \
            goto done;                                                                             \
    } while (0)

#endif
