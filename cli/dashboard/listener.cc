#include "cli/dashboard/listener.h"

#include <arpa/inet.h>
#include <httplib.h>
#include <netinet/in.h>

#include <cerrno>
#include <cstring>

#include "config/parse.h"

namespace replica {

std::string ListenAddress::Text() const {
  const bool six = host.find(':') != std::string::npos;
  return (six ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

Result<ListenAddress> ParseListenAddress(const std::string& text) {
  const Status wrong = Invalid(
      "\"" + text + "\" is no address to listen on: give 127.0.0.1:3030, [::1]:3030, or :3030 for every address");
  ListenAddress out;
  const size_t colon = text.rfind(':');
  std::string host = colon == std::string::npos ? "" : text.substr(0, colon);
  const std::string port = colon == std::string::npos ? text : text.substr(colon + 1);
  if (port.empty() || port.size() > 5 || port.find_first_not_of("0123456789") != std::string::npos) return wrong;
  out.port = std::stoi(port);
  if (out.port > 65535) return wrong;
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  if (host.empty()) host = "0.0.0.0";
  if (host == "localhost") host = "127.0.0.1";
  in_addr four{};
  in6_addr six{};
  if (::inet_pton(AF_INET, host.c_str(), &four) == 1) {
    out.loopback = ntohl(four.s_addr) >> 24 == 127;
  } else if (::inet_pton(AF_INET6, host.c_str(), &six) == 1) {
    out.loopback = IN6_IS_ADDR_LOOPBACK(&six) != 0;
  } else {
    return wrong;
  }
  out.host = host;
  return out;
}

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
  return Invalid("cannot listen on " + address->Text() + why +
                 "; another program may have the port: choose another with --listen");
}

}  // namespace replica
