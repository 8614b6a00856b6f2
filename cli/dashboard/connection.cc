#include "cli/dashboard/connection.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "base/clock.h"
#include "cli/dashboard/access.h"

namespace replica {
namespace {

constexpr int kSlice = 200;  // ms between looks whether the server stops

thread_local bool refuse = false;  // the connection that is taken now is one too many

// void before cpp-httplib 0.15; since then whether it was taken.
using Enqueued = decltype(std::declval<httplib::TaskQueue&>().enqueue({}));

// A thread for each connection that is served; what comes over that is refused in the accepting thread.
class Connections : public httplib::TaskQueue {
 public:
  Enqueued enqueue(std::function<void()> serve) override {
    if (busy_.fetch_add(1) >= kMostConnections) {
      refuse = true;
      serve();
      refuse = false;
      busy_.fetch_sub(1);
      return static_cast<Enqueued>(true);
    }
    pool_.enqueue([this, serve = std::move(serve)] {
      serve();
      busy_.fetch_sub(1);
    });
    return static_cast<Enqueued>(true);
  }
  void shutdown() override { pool_.shutdown(); }

 private:
  std::atomic<int> busy_{0};
  httplib::ThreadPool pool_{kMostConnections};
};

void AddressOf(const sockaddr_storage& address, std::string* host, int* port) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET) {
    const auto* four = reinterpret_cast<const sockaddr_in*>(&address);
    ::inet_ntop(AF_INET, &four->sin_addr, text, sizeof text);
    *port = ntohs(four->sin_port);
  } else if (address.ss_family == AF_INET6) {
    const auto* six = reinterpret_cast<const sockaddr_in6*>(&address);
    ::inet_ntop(AF_INET6, &six->sin6_addr, text, sizeof text);
    *port = ntohs(six->sin6_port);
  }
  *host = text;
}

// A client's socket, non-blocking, with TLS when `ssl` is not null.
class BoundedStream : public httplib::Stream {
 public:
  BoundedStream(socket_t sock, SSL* ssl) : sock_(sock), ssl_(ssl) { NewRequest(); }

  void NewRequest() {
    got_ = 0;
    read_by_ = Now() + kRequestTime;
    write_by_ = 0;
  }

  // Waits for a request's first byte, while `going` says so.
  bool AwaitRequest(const std::function<bool()>& going) {
    for (int waited = 0; waited < kRestTime && going(); waited += kSlice) {
      if (at_ < end_ || (ssl_ != nullptr && SSL_pending(ssl_) > 0)) return true;
      pollfd p = {sock_, POLLIN, 0};
      if (::poll(&p, 1, kSlice) > 0) return true;
    }
    return false;
  }

  bool Handshake() {
    for (;;) {
      const int rc = SSL_accept(ssl_);
      if (rc == 1) return true;
      if (!WaitFor(SSL_get_error(ssl_, rc), read_by_)) return false;
    }
  }

  bool is_readable() const override { return true; }
  bool is_writable() const override { return true; }
  socket_t socket() const override { return sock_; }

  ssize_t read(char* out, size_t size) override {
    if (at_ == end_) {
      const ssize_t n = Fill();
      if (n <= 0) return n;
    }
    const size_t n = std::min(size, end_ - at_);
    if (got_ + n > kRequestBytes) return -1;
    got_ += n;
    std::memcpy(out, buffer_ + at_, n);
    at_ += n;
    return static_cast<ssize_t>(n);
  }

  ssize_t write(const char* data, size_t size) override {
    if (write_by_ == 0) write_by_ = Now() + kAnswerTime;
    for (;;) {
      if (ssl_ != nullptr) {
        ERR_clear_error();
        const int n = SSL_write(ssl_, data, static_cast<int>(std::min<size_t>(size, 1 << 20)));
        if (n > 0) return n;
        if (!WaitFor(SSL_get_error(ssl_, n), write_by_)) return -1;
      } else {
        const ssize_t n = ::send(sock_, data, size, MSG_NOSIGNAL);
        if (n >= 0) return n;
        if (errno != EINTR && (errno != EAGAIN || !Wait(POLLOUT, write_by_))) return -1;
      }
    }
  }

  void get_remote_ip_and_port(std::string& ip, int& port) const override {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    if (::getpeername(sock_, reinterpret_cast<sockaddr*>(&address), &size) == 0) AddressOf(address, &ip, &port);
  }
  void get_local_ip_and_port(std::string& ip, int& port) const override {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    if (::getsockname(sock_, reinterpret_cast<sockaddr*>(&address), &size) == 0) AddressOf(address, &ip, &port);
  }

 private:
  static int64_t Now() { return SystemClock().SteadyMicros() / 1000; }

  bool Wait(short events, int64_t by) const {
    const int64_t left = by - Now();
    pollfd p = {sock_, events, 0};
    return left > 0 && ::poll(&p, 1, static_cast<int>(left)) > 0;
  }

  bool WaitFor(int ssl_error, int64_t by) const {
    if (ssl_error == SSL_ERROR_WANT_READ) return Wait(POLLIN, by);
    return ssl_error == SSL_ERROR_WANT_WRITE && Wait(POLLOUT, by);
  }

  ssize_t Fill() {
    at_ = end_ = 0;
    for (;;) {
      ssize_t n = 0;
      if (Now() >= read_by_) return -1;  // also while bytes keep coming
      if (ssl_ != nullptr) {
        ERR_clear_error();
        n = SSL_read(ssl_, buffer_, sizeof buffer_);
        if (n <= 0 && WaitFor(SSL_get_error(ssl_, static_cast<int>(n)), read_by_)) continue;
      } else {
        n = ::recv(sock_, buffer_, sizeof buffer_, 0);
        if (n < 0 && (errno == EINTR || (errno == EAGAIN && Wait(POLLIN, read_by_)))) continue;
      }
      if (n > 0) end_ = static_cast<size_t>(n);
      return n > 0 ? n : -1;
    }
  }

  const socket_t sock_;
  SSL* const ssl_;
  char buffer_[4096];
  size_t at_ = 0;
  size_t end_ = 0;
  size_t got_ = 0;  // bytes of the request so far
  int64_t read_by_ = 0;
  int64_t write_by_ = 0;
};

// Serves one connection: requests one after the other, until the client has enough or takes too long.
thread_local bool close_after_answer = false;

bool Serve(socket_t sock, SSL* ssl, ConnectionCount* count, const std::function<bool()>& going, size_t most,
           const std::function<bool(httplib::Stream&, bool last, bool& closed)>& one) {
  bool ok = false;
  BoundedStream stream(sock, ssl);
  std::string address;
  int port = 0;
  stream.get_remote_ip_and_port(address, port);
  address = Network(address);
  if (count->Add(address)) {
    if (ssl == nullptr || stream.Handshake()) {
      for (size_t left = most; left > 0 && stream.AwaitRequest(going); left--) {
        stream.NewRequest();
        bool closed = false;
        close_after_answer = false;
        ok = one(stream, left == 1, closed);
        if (!ok || closed || close_after_answer) break;
      }
      if (ssl != nullptr) SSL_shutdown(ssl);  // one way: nobody is waited for
    }
    count->Remove(address);
  }
  return ok;
}

using Setup = std::function<void(httplib::Request&)>;

// The server's process_request, which asks the stream for the addresses (cpp-httplib 0.11, Debian 12), or is told them
// (0.18, Debian 13).
[[maybe_unused]] bool Process(httplib::Server* server,
                              bool (httplib::Server::*process)(httplib::Stream&, bool, bool&, const Setup&),
                              httplib::Stream& stream, bool last, bool& closed, const Setup& setup) {
  return (server->*process)(stream, last, closed, setup);
}

[[maybe_unused]] bool Process(httplib::Server* server,
                              bool (httplib::Server::*process)(httplib::Stream&, const std::string&, int,
                                                               const std::string&, int, bool, bool&, const Setup&),
                              httplib::Stream& stream, bool last, bool& closed, const Setup& setup) {
  std::string remote;
  std::string local;
  int remote_port = 0;
  int local_port = 0;
  stream.get_remote_ip_and_port(remote, remote_port);
  stream.get_local_ip_and_port(local, local_port);
  return (server->*process)(stream, remote, remote_port, local, local_port, last, closed, setup);
}

void Prepare(socket_t sock) {
  ::fcntl(sock, F_SETFL, ::fcntl(sock, F_GETFL) | O_NONBLOCK);
  ::fcntl(sock, F_SETFD, FD_CLOEXEC);
  int yes = 1;
  ::setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

void CloseSocket(socket_t sock) {
  ::shutdown(sock, SHUT_RDWR);
  ::close(sock);
}

}  // namespace

void CloseAfterAnswer() {
  close_after_answer = true;
}

bool ConnectionCount::Add(const std::string& address) {
  MutexLock lock(mutex_);
  int& count = of_address_[address];
  if (count >= most_of_one_) return false;
  count++;
  return true;
}

void ConnectionCount::Remove(const std::string& address) {
  MutexLock lock(mutex_);
  auto found = of_address_.find(address);
  if (found != of_address_.end() && --found->second == 0) of_address_.erase(found);
}

BoundedServer::BoundedServer(bool one_address) : count_(one_address) {
  new_task_queue = [] { return new Connections; };
}

bool BoundedServer::process_and_close_socket(socket_t sock) {
  bool ok = false;
  if (!refuse) {
    Prepare(sock);
    ok = Serve(
        sock, nullptr, &count_, [this] { return svr_sock_ != INVALID_SOCKET; }, keep_alive_max_count_,
        [this](httplib::Stream& stream, bool last, bool& closed) {
          return Process(this, &BoundedServer::process_request, stream, last, closed, nullptr);
        });
  }
  CloseSocket(sock);
  return ok;
}

BoundedTlsServer::BoundedTlsServer(const std::string& certificate, const std::string& key, bool one_address)
    : httplib::SSLServer(certificate.c_str(), key.c_str()), count_(one_address) {
  new_task_queue = [] { return new Connections; };
}

bool BoundedTlsServer::process_and_close_socket(socket_t sock) {
  bool ok = false;
  const std::unique_ptr<SSL, void (*)(SSL*)> ssl(refuse ? nullptr : SSL_new(ssl_context()), SSL_free);
  if (ssl != nullptr) {
    Prepare(sock);
    SSL_set_fd(ssl.get(), sock);
    SSL_set_mode(ssl.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    ok = Serve(
        sock, ssl.get(), &count_, [this] { return svr_sock_ != INVALID_SOCKET; }, keep_alive_max_count_,
        [this, &ssl](httplib::Stream& stream, bool last, bool& closed) {
          return Process(this, &BoundedTlsServer::process_request, stream, last, closed,
                         [&](httplib::Request& request) { request.ssl = ssl.get(); });
        });
  }
  CloseSocket(sock);
  return ok;
}

}  // namespace replica
