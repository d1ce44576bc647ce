/* See status_file.h. */
#include "daemon/status_file.h"

#include "base/fs.h"
#include "daemon/state.h"
#include "proto/message_json.h"
#include "proto/run_dir.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum apd_code apd_status_file_write(const char *run_dir, const Advprop__V1__Status *status,
                                    double date_s, int exit_status, struct apd_err *err)
{
    char path[APD_RUN_PATH_MAX], socket_path[APD_RUN_PATH_MAX], host[256] = "";
    json_t *object = NULL, *body = NULL;
    char *text = NULL;
    enum apd_code rc;

    APD_GO(apd_run_dir_path(run_dir, APD_RUN_STATUS, path, err));
    APD_GO(apd_run_dir_path(run_dir, APD_RUN_SOCKET, socket_path, err));
    (void)gethostname(host, sizeof host - 1);
    object = json_pack("{s:s, s:I, s:s, s:f, s:o}", "host", host, "pid", (json_int_t)getpid(),
                       "socket", socket_path, "date_s", date_s, "exit_status",
                       apd_state_ended(status->state) ? json_integer(exit_status) : json_null());
    body = apd_message_json(&status->base);
    if (object == NULL || body == NULL || json_object_update(object, body) != 0 ||
        (text = json_dumps(object, JSON_INDENT(1))) == NULL) {
        rc = apd_fail(err, APD_NOMEM, "%s", path);
        goto done;
    }
    rc = apd_write_file(path, text, strlen(text), 0, err);
done:
    free(text);
    json_decref(body);
    json_decref(object);
    return rc;
}
