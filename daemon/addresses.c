/* See addresses.h. */
#include "daemon/addresses.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static int is_usable(const struct ifaddrs *at, int family)
{
    if (at->ifa_addr == NULL || at->ifa_addr->sa_family != family)
        return 0;
    if (!(at->ifa_flags & IFF_UP) || (at->ifa_flags & IFF_LOOPBACK))
        return 0;
    return family != AF_INET6 ||
           !IN6_IS_ADDR_LINKLOCAL(
               &((const struct sockaddr_in6 *)(const void *)at->ifa_addr)->sin6_addr);
}

static size_t add(const struct ifaddrs *list, int family, char out[][64], size_t n)
{
    for (const struct ifaddrs *at = list; at != NULL && n < APD_WIREUP_ADDRESSES;
         at = at->ifa_next) {
        const void *address;

        if (!is_usable(at, family))
            continue;
        address =
            family == AF_INET
                ? (const void *)&((const struct sockaddr_in *)(const void *)at->ifa_addr)->sin_addr
                : &((const struct sockaddr_in6 *)(const void *)at->ifa_addr)->sin6_addr;
        if (inet_ntop(family, address, out[n], 64) != NULL)
            n++;
    }
    return n;
}

enum apd_code apd_addresses(int local_only, char out[APD_WIREUP_ADDRESSES][64], struct apd_err *err)
{
    struct ifaddrs *list = NULL;
    size_t n = 0;

    memset(out, 0, APD_WIREUP_ADDRESSES * sizeof out[0]);
    if (!local_only) {
        if (getifaddrs(&list) != 0)
            return apd_fail_errno(err, "listing network interfaces");
        n = add(list, AF_INET, out, 0);
        n = add(list, AF_INET6, out, n);
        freeifaddrs(list);
    }
    if (n == 0)
        (void)snprintf(out[0], sizeof out[0], "127.0.0.1");
    return APD_OK;
}
