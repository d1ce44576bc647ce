/* See child.h. */
#include "cli/child.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHM_ROOT "/dev/shm"

enum apd_code apd_signals_open(int *out_fd, struct apd_err *err)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD};
    sigset_t set;
    int fd;

    sigemptyset(&set);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaddset(&set, signals[i]);
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
        return apd_fail_errno(err, "blocking signals");
    fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return apd_fail_errno(err, "signalfd");
    *out_fd = fd;
    return APD_OK;
}

int apd_signals_next(int fd)
{
    struct signalfd_siginfo info;

    return read(fd, &info, sizeof info) == sizeof info ? (int)info.ssi_signo : 0;
}

/* Runs in the child; never returns. The message goes to the log. */
static void become(const struct apd_command_line *line, int in, int out, pid_t parent)
{
    struct apd_err err = {0};
    sigset_t term;

    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    (void)sigprocmask(SIG_SETMASK, &term, NULL);
    (void)signal(SIGINT, SIG_DFL); /* a shell's & ignores it */
    (void)setsid();
    if (prctl(PR_SET_PDEATHSIG, SIGINT) != 0 || getppid() != parent)
        _exit(APD_EXIT_INTERNAL);
    if (dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 || dup2(out, STDERR_FILENO) < 0)
        _exit(APD_EXIT_INTERNAL);
    (void)apd_launch_exec(line, &err);
    (void)dprintf(STDERR_FILENO, "%s\n", err.msg);
    _exit(APD_EXIT_CONFIG);
}

enum apd_code apd_child_start(const struct apd_command_line *line, const char *log, pid_t *out_pid,
                              struct apd_err *err)
{
    enum apd_code rc = APD_OK;
    pid_t parent = getpid(), pid;
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

    if (in < 0 || out < 0) {
        rc = apd_fail_errno(err, "opening %s", out < 0 ? log : "/dev/null");
        goto done;
    }
    pid = fork();
    if (pid < 0) {
        rc = apd_fail_errno(err, "fork");
        goto done;
    }
    if (pid == 0)
        become(line, in, out, parent);
    *out_pid = pid;
done:
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    return rc;
}

static void empty_folder(const char *path)
{
    DIR *folder = opendir(path);

    if (folder == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
        if (entry->d_name[0] != '.')
            (void)unlinkat(dirfd(folder), entry->d_name, 0);
    closedir(folder);
}

/* Folders are named advprop.UID.PID. */
static void remove_orphans(void)
{
    DIR *root = opendir(SHM_ROOT);
    char path[sizeof SHM_ROOT + 256];

    if (root == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(root)) != NULL;) {
        unsigned long uid;
        long pid;
        int end = 0;

        if (sscanf(entry->d_name, "advprop.%lu.%ld%n", &uid, &pid, &end) != 2 ||
            entry->d_name[end] != '\0' || uid != (unsigned long)geteuid())
            continue;
        if (kill((pid_t)pid, 0) == 0 || errno != ESRCH)
            continue;
        (void)snprintf(path, sizeof path, SHM_ROOT "/%s", entry->d_name);
        empty_folder(path);
        (void)rmdir(path);
    }
    closedir(root);
}

void apd_shm_open(struct apd_shm *shm)
{
    remove_orphans();
    (void)snprintf(shm->path, sizeof shm->path, SHM_ROOT "/advprop.%lu.%ld",
                   (unsigned long)geteuid(), (long)getpid());
    if (getenv("OMPI_MCA_btl_vader_backing_directory") != NULL || mkdir(shm->path, 0700) != 0 ||
        setenv("OMPI_MCA_btl_vader_backing_directory", shm->path, 1) != 0)
        shm->path[0] = '\0';
}

void apd_shm_clean(const struct apd_shm *shm)
{
    if (shm->path[0] != '\0')
        empty_folder(shm->path);
}

void apd_shm_close(struct apd_shm *shm)
{
    apd_shm_clean(shm);
    if (shm->path[0] != '\0')
        (void)rmdir(shm->path);
    shm->path[0] = '\0';
}
