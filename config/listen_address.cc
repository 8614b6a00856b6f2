#include "config/listen_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

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

}  // namespace replica
