#include "base/clock.h"

#include <math.h>
#include <stdio.h>
#include <time.h>

static double read_clock(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double apd_now_s(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t apd_now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

double apd_date_s(void)
{
    return read_clock(CLOCK_REALTIME);
}

void apd_date_format(double date_s, char *out, size_t size)
{
    time_t whole = (time_t)floor(date_s);
    char day[24];
    struct tm utc;

    gmtime_r(&whole, &utc);
    strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &utc);
    (void)snprintf(out, size, "%s.%03dZ", day, (int)((date_s - (double)whole) * 1000));
}
