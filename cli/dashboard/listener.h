// Where a server of the replica command listens.
#ifndef LIBREPLICA_CLI_DASHBOARD_LISTENER_H_
#define LIBREPLICA_CLI_DASHBOARD_LISTENER_H_

#include <string>

#include "base/status.h"

namespace httplib {
class Server;
}

namespace replica {

struct ListenAddress {
  std::string host;
  int port = 0;
  bool loopback = false;  // nobody on another machine can reach it

  std::string Text() const;  // "127.0.0.1:3030", "[::1]:3030"
};

// "127.0.0.1:3030", "localhost:3030", "[::1]:3030", ":9090" (every address), "9090" (every address).
Result<ListenAddress> ParseListenAddress(const std::string& text);

// Binds a server; with port 0 to a free one, which is put into `address`. kInvalidArgument: it is in use, or not of
// this machine.
Status Bind(httplib::Server* server, ListenAddress* address);

}  // namespace replica

#endif  // LIBREPLICA_CLI_DASHBOARD_LISTENER_H_
