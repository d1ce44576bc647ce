/* The numeric addresses under which workers can reach this host. */
#ifndef APD_DAEMON_ADDRESSES_H
#define APD_DAEMON_ADDRESSES_H

#include "base/err.h"
#include "proto/wireup.h"

/* local_only: 127.0.0.1. Otherwise those of all interfaces that are up, without loopback and
 * link-local ones, IPv4 first; if there is none, 127.0.0.1. */
APD_MUST_USE enum apd_code apd_addresses(int local_only, char out[APD_WIREUP_ADDRESSES][64],
                                         struct apd_err *err);

#endif
