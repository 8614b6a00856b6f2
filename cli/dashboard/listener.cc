#include "cli/dashboard/listener.h"

#include <httplib.h>

#include <cerrno>
#include <cstring>

#include "config/parse.h"

namespace replica {

Status Bind(httplib::Server* server, ListenAddress* address) {
  // The library's default, SO_REUSEPORT, would let a second server take half of the requests in silence.
  server->set_socket_options([](socket_t sock) {
    int yes = 1;
    ::setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  });
  errno = 0;
  if (address->port == 0) {
    address->port = server->bind_to_any_port(address->host);
    if (address->port > 0) return Ok();
  } else if (server->bind_to_port(address->host, address->port)) {
    return Ok();
  }
  const std::string why = errno == 0 ? "" : std::string(": ") + std::strerror(errno);
  return Invalid("cannot listen on " + address->Text() + why + "; another program may have the port: choose another");
}

}  // namespace replica
