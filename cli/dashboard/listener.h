// Where a server of the replica command listens.
#ifndef LIBREPLICA_CLI_DASHBOARD_LISTENER_H_
#define LIBREPLICA_CLI_DASHBOARD_LISTENER_H_

#include "config/listen_address.h"

namespace httplib {
class Server;
}

namespace replica {

// Binds a server; with port 0 to a free one, which is put into `address`. kInvalidArgument: it is in use, or not of
// this machine.
Status Bind(httplib::Server* server, ListenAddress* address);

}  // namespace replica

#endif  // LIBREPLICA_CLI_DASHBOARD_LISTENER_H_
