// Addresses that a server listens on.
#ifndef LIBREPLICA_CONFIG_LISTEN_ADDRESS_H_
#define LIBREPLICA_CONFIG_LISTEN_ADDRESS_H_

#include <string>

#include "base/status.h"

namespace replica {

struct ListenAddress {
  std::string host;
  int port = 0;
  bool loopback = false;  // nobody on another machine can reach it

  std::string Text() const;  // "127.0.0.1:3030", "[::1]:3030"
};

// "127.0.0.1:3030", "localhost:3030", "[::1]:3030", ":9090" (every address), "9090" (every address).
Result<ListenAddress> ParseListenAddress(const std::string& text);

}  // namespace replica

#endif  // LIBREPLICA_CONFIG_LISTEN_ADDRESS_H_
