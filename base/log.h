/* Logging: one line per event in logfmt on stderr: ts level comp rank msg key=value.
 * Levels by volume: error: someone must act; warn: we went on, and how; info: lifecycle; debug:
 * grows with objects; trace: grows with steps. Safe from any thread (one write(2) per line). */
#ifndef APD_BASE_LOG_H
#define APD_BASE_LOG_H

enum apd_log_level { APD_LOG_ERROR, APD_LOG_WARN, APD_LOG_INFO, APD_LOG_DEBUG, APD_LOG_TRACE };

/* `comp` ("advpropd", "worker", ...) is not copied and must outlive the process; rank -1: not
 * shown. */
void apd_log_init(const char *comp, int rank, enum apd_log_level level);

/* "info" -> APD_LOG_INFO; returns -1 for an unknown name. */
int apd_log_level_parse(const char *name);

/* `fields` is a printf format for the whole of ` key=value ...`, or "" for none. Values with spaces
 * are the caller's to quote. Example: apd_log(APD_LOG_INFO, "saved", "step=%llu path=\"%s\"", s,
 * p); */
void apd_log(enum apd_log_level level, const char *msg, const char *fields, ...)
    __attribute__((format(printf, 3, 4)));

#endif
