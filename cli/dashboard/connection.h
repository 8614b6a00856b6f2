// The web server with bounds on what one client, or many, can take of it: cpp-httplib bounds each read, not a request.
//
// A request has kRequestTime from its first byte to its last, and kRequestBytes; an answer has kAnswerTime. Connections
// over kMostConnections, or over kMostOfOneAddress of one address (or /64), are closed as they come.
#ifndef LIBREPLICA_CLI_DASHBOARD_CONNECTION_H_
#define LIBREPLICA_CLI_DASHBOARD_CONNECTION_H_

#include <httplib.h>

#include <map>
#include <string>

#include "base/thread_annotations.h"

namespace replica {

constexpr int kMostConnections = 64;
constexpr int kMostOfOneAddress = 24;
constexpr size_t kRequestBytes = 96 << 10;  // header and body
constexpr int kRequestTime = 5000;          // ms
constexpr int kAnswerTime = 10000;          // ms
constexpr int kRestTime = 5000;             // ms that a connection may wait between two requests

// The connection of the request that this thread is answering ends with the answer. For a request whose body is not
// read: what is left of it would be taken for the next request.
void CloseAfterAnswer();

// Counts the connections of each address. Thread-safe.
class ConnectionCount {
 public:
  // `one_address`: all come by a proxy, so one address may have all of them.
  explicit ConnectionCount(bool one_address) : most_of_one_(one_address ? kMostConnections : kMostOfOneAddress) {}
  // False: there are too many.
  bool Add(const std::string& address) EXCLUDES(mutex_);
  void Remove(const std::string& address) EXCLUDES(mutex_);

 private:
  const int most_of_one_;
  Mutex mutex_;
  std::map<std::string, int> of_address_ GUARDED_BY(mutex_);
};

class BoundedServer : public httplib::Server {
 public:
  explicit BoundedServer(bool one_address);

 private:
  bool process_and_close_socket(socket_t sock) override;
  ConnectionCount count_;
};

class BoundedTlsServer : public httplib::SSLServer {
 public:
  BoundedTlsServer(const std::string& certificate, const std::string& key, bool one_address);

 private:
  bool process_and_close_socket(socket_t sock) override;
  ConnectionCount count_;
};

}  // namespace replica

#endif  // LIBREPLICA_CLI_DASHBOARD_CONNECTION_H_
