#include "worker/index/open_images.h"

#include "worker/index/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The manifest is there for as long as it takes to open it. */
static enum apd_code open_without_index(const struct apd_index_settings *settings,
                                        struct apd_dataset **out, struct apd_err *err)
{
    const char *folder = getenv("TMPDIR");
    struct apd_index_settings here = *settings;
    struct apd_index_report report = {0};
    char path[4096];
    enum apd_code rc;

    (void)snprintf(path, sizeof path, "%.2000s/advprop-index-XXXXXX",
                   folder != NULL ? folder : "/tmp");
    if (mkdtemp(path) == NULL)
        return apd_fail_errno(err, "making folder %s", path);
    strcat(path, "/index");
    here.out = path;
    rc = apd_index(&here, &report, err);
    if (rc == APD_OK)
        rc = apd_dataset_open("images", path, APD_SPLIT_TEST, 0, out, err);
    (void)unlink(path);
    path[strlen(path) - strlen("/index")] = '\0';
    (void)rmdir(path);
    free(report.path);
    return rc;
}

enum apd_code apd_open_images(const struct apd_index_settings *settings, struct apd_dataset **out,
                              struct apd_err *err)
{
    struct apd_err none;
    char *index = NULL;
    enum apd_code rc;

    if (apd_source_find_index(settings->src, &index, &none) != APD_OK)
        return open_without_index(settings, out, err);
    rc = apd_dataset_open("images", index, APD_SPLIT_TEST, 0, out, err);
    free(index);
    return rc;
}
