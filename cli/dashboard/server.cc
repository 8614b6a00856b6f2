#include "cli/dashboard/server.h"

#include <httplib.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <thread>

#include "base/fs.h"
#include "cli/dashboard/assets.h"
#include "cli/dashboard/connection.h"
#include "cli/dashboard/metrics.h"
#include "cli/report_tree.h"
#include "cli/settings_report.h"
#include "config/parse.h"
#include "sql/report.h"
#include "uploader/event_log.h"
#include "uploader/restore.h"
#include "vfs/database.h"

namespace replica {
namespace {

using nlohmann::ordered_json;

// A map of header lines that holds those of one name in their order.
template <typename Headers>
constexpr bool kKeepsOrder = requires {
  typename Headers::key_compare;
};

constexpr size_t kMostBody = 64 << 10;  // bytes of a request
constexpr size_t kLongestName = 200;
constexpr char kPolicy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action "
    "'self'; base-uri 'none'; frame-ancestors 'none'";

void Answer(httplib::Response& response, int status, const ordered_json& document) {
  response.status = status;
  response.set_content(document.dump(-1, ' ', false, ordered_json::error_handler_t::replace), "application/json");
}

void Refuse(httplib::Response& response, int status, const std::string& why) {
  Answer(response, status, {{"error", why}});
}

// "database=3" of the query, if it is one of ours.
std::optional<size_t> DatabaseOf(const std::string& text, size_t count) {
  if (text.empty() || text.size() > 6 || text.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
  const size_t id = std::stoul(text);
  return id < count ? std::optional<size_t>(id) : std::nullopt;
}

// The body's object; its "database" must be one of ours.
std::optional<ordered_json> BodyOf(const httplib::Request& request, size_t databases, httplib::Response& response) {
  ordered_json body = ordered_json::parse(request.body, nullptr, false);
  if (body.is_object() && body.contains("database") && body["database"].is_number_unsigned() &&
      body["database"].get<uint64_t>() < databases)
    return body;
  Refuse(response, 400, "the request names no database");
  return std::nullopt;
}

std::string TextOf(const ordered_json& body, const char* key) {
  const auto found = body.find(key);
  return found != body.end() && found->is_string() ? found->get<std::string>() : "";
}

// Why a name cannot be that of a new file beside a database; empty when it can.
std::string NameError(const std::string& name) {
  if (name.empty() || name.size() > kLongestName) return "give the new file a name of at most 200 bytes";
  if (name[0] == '.' || name.find('/') != std::string::npos) return "give a file name without folders";
  for (char c : name)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) return "the file name holds a control character";
  for (const std::string end : {"-wal", "-shm", "-journal", "-replica"})
    if (name.size() > end.size() && name.compare(name.size() - end.size(), end.size(), end) == 0)
      return "a name that ends in " + end + " is SQLite's or libreplica's own";
  return "";
}

std::string CookieOf(const httplib::Request& request, const std::string& name) {
  const std::string all = request.get_header_value("Cookie");
  for (size_t at = 0; at < all.size();) {
    const size_t end = std::min(all.find(';', at), all.size());
    std::string one = all.substr(at, end - at);
    one.erase(0, one.find_first_not_of(' '));
    if (one.rfind(name + "=", 0) == 0) return one.substr(name.size() + 1);
    at = end + 1;
  }
  return "";
}

std::string HostWithoutPort(const std::string& host) {
  const size_t colon = host.rfind(':');
  return colon == std::string::npos || host.back() == ']' ? host : host.substr(0, colon);
}

}  // namespace

Server::Server(ServerOptions options, const Session* session, Monitor* monitor, Access* access, Jobs* jobs)
    : options_(std::move(options)), session_(session), monitor_(monitor), access_(access), jobs_(jobs) {}

Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::Create(ServerOptions options, const Session* session, Monitor* monitor,
                                               Access* access, Jobs* jobs) {
  std::unique_ptr<Server> server(new Server(std::move(options), session, monitor, access, jobs));
  const ServerOptions& o = server->options_;
  for (const auto& [setting, file] : {std::pair("tls-certificate", o.certificate), std::pair("tls-key", o.key)})
    if (!file.empty() && ::access(file.c_str(), R_OK) != 0)
      return ErrnoStatus(errno, "read", file).In(std::string("dashboard.") + setting);
  if (o.certificate.empty() != o.key.empty())
    return Invalid("TLS needs both dashboard.tls-certificate and dashboard.tls-key");
  const bool one_address = server->BehindProxy();
  if (server->tls()) {
    server->http_ = std::make_unique<BoundedTlsServer>(o.certificate, o.key, one_address);
    if (!server->http_->is_valid())
      return Invalid(o.certificate + " and " + o.key + " are no PEM certificate and the key that belongs to it");
  } else {
    server->http_ = std::make_unique<BoundedServer>(one_address);
  }
  server->AddRoutes();
  REPLICA_TRY(Bind(server->http_.get(), &server->options_.listen));
  return server;
}

void Server::Run() {
  http_->listen_after_bind();
  ended_.store(true);
}

void Server::Stop() {
  // Before Run has come to listening httplib hears nothing of it.
  while (!ended_.load()) {
    http_->stop();
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

// --- who is asking

bool Server::HostFits(const Request& request) const {
  const std::string host = request.get_header_value("Host");
  if (!options_.public_host.empty() && host == options_.public_host) return true;
  if (!options_.listen.loopback) return true;
  // Another site's name that was pointed at 127.0.0.1 would have the browser's help in speaking to us.
  const std::string name = HostWithoutPort(host);
  return name == "localhost" || name == "127.0.0.1" || name == "[::1]" || name == options_.listen.host;
}

bool Server::SameOrigin(const Request& request) const {
  const std::string site = request.get_header_value("Sec-Fetch-Site");
  if (!site.empty() && site != "same-origin") return false;
  const std::string origin = request.get_header_value("Origin");
  if (origin.empty()) return true;  // not a browser's form or script; the CSRF token decides
  const size_t host = origin.find("://");
  if (host == std::string::npos) return false;
  // A proxy may pass its own name for the Host.
  const std::string name = origin.substr(host + 3);
  return name == request.get_header_value("Host") || (!options_.public_host.empty() && name == options_.public_host);
}

bool Server::BehindProxy() const {
  return !options_.public_host.empty() && options_.listen.loopback;
}

std::optional<Access::Session> Server::SessionOf(const Request& request) {
  if (access_ == nullptr) return std::nullopt;
  const std::string token = CookieOf(request, SecureCookies() ? "__Host-replica" : "replica");
  return token.empty() ? std::nullopt : access_->Find(token);
}

std::string Server::AddressOf(const Request& request) const {
  const auto lines = request.headers.equal_range("X-Forwarded-For");
  const auto count = std::distance(lines.first, lines.second);
  // Newer versions of cpp-httplib do not keep the order of lines: which one is the proxy's cannot be told then.
  if (!BehindProxy() || count == 0 || (count > 1 && !kKeepsOrder<httplib::Headers>)) return request.remote_addr;
  // The last one of the last line is the proxy's own word; those before it are the client's.
  const std::string forwarded = std::next(lines.first, count - 1)->second;
  const size_t comma = forwarded.rfind(',');
  std::string last = comma == std::string::npos ? forwarded : forwarded.substr(comma + 1);
  last.erase(0, last.find_first_not_of(' '));
  return last.substr(0, 64);
}

bool Server::MayReadMetrics(const Request& request) {
  const std::string given = request.get_header_value("Authorization");
  if (!options_.metrics_token.empty() && SameSecret(given, "Bearer " + options_.metrics_token)) return true;
  if (options_.metrics_token.empty() && options_.open_metrics) return true;
  if (options_.metrics_token.empty() && options_.listen.loopback && options_.public_host.empty()) return true;
  return SessionOf(request).has_value();
}

void Server::OnGet(const char* path, Handler handler) {
  http_->Get(path, [this, handler](const Request& request, Response& response) {
    if (!SessionOf(request)) return Refuse(response, 401, "log in first");
    (this->*handler)(request, response);
  });
}

void Server::OnPost(const char* path, Handler handler) {
  http_->Post(path, [this, handler](const Request& request, Response& response) {
    const auto session = SessionOf(request);
    if (!session) return Refuse(response, 401, "log in first");
    if (!SameSecret(request.get_header_value("X-CSRF-Token"), session->csrf))
      return Refuse(response, 403, "the request does not come from the dashboard's page: load it again");
    (this->*handler)(request, response);
  });
}

// --- routes

void Server::AddRoutes() {
  http_->set_payload_max_length(kMostBody);
  httplib::Headers headers = {{"Content-Security-Policy", kPolicy},
                              {"X-Content-Type-Options", "nosniff"},
                              {"X-Frame-Options", "DENY"},
                              {"Referrer-Policy", "no-referrer"},
                              {"Cross-Origin-Opener-Policy", "same-origin"},
                              {"Cross-Origin-Resource-Policy", "same-origin"},
                              {"Cache-Control", "no-store"}};
  if (tls()) headers.emplace("Strict-Transport-Security", "max-age=31536000");
  http_->set_default_headers(headers);
  // Before the body is read.
  http_->set_pre_routing_handler([this](const Request& request, Response& response) {
    // What is small on the wire and large in memory.
    const bool body = options_.page && request.method == "POST";
    const size_t lengths = request.get_header_value_count("Content-Length");
    const std::string length = request.get_header_value("Content-Length");
    const bool plain = lengths == 0 ||
                       (lengths == 1 && !length.empty() && length.find_first_not_of("0123456789") == std::string::npos);
    // Only what is answered after its whole body was read leaves the connection in a state for another request.
    if (!plain || (!body && lengths != 0 && length != "0")) {
      CloseAfterAnswer();
      Refuse(response, 400, "a request of this kind has no body, and one Content-Length is a number");
      return httplib::Server::HandlerResponse::Handled;
    }
    if (request.has_header("Content-Encoding") || request.has_header("Transfer-Encoding") ||
        request.has_header("Range") || (!body && request.method != "GET" && request.method != "HEAD")) {
      CloseAfterAnswer();
      Refuse(response, 400, "only GET, HEAD and POST of the whole, with a plain body, are understood here");
      return httplib::Server::HandlerResponse::Handled;
    }
    if (!HostFits(request)) {
      CloseAfterAnswer();
      Refuse(response, 421, "this name is not the dashboard's: set dashboard.public-url to the one you use");
      return httplib::Server::HandlerResponse::Handled;
    }
    if (request.method == "POST" && !SameOrigin(request)) {
      CloseAfterAnswer();
      Refuse(response, 403, "the request comes from another site");
      return httplib::Server::HandlerResponse::Handled;
    }
    return httplib::Server::HandlerResponse::Unhandled;
  });
  http_->set_error_handler([](const Request&, Response& response) {
    if (response.body.empty()) Refuse(response, response.status, "there is nothing here");
  });
  http_->set_exception_handler([](const Request&, Response& response, const std::exception_ptr&) {
    Refuse(response, 500, "unexpected error in the dashboard");
  });
  http_->Get("/metrics", [this](const Request& q, Response& r) { GetMetrics(q, r); });
  http_->Get("/healthz", [this](const Request& q, Response& r) { GetHealth(q, r); });
  if (options_.page) AddPage();
}

void Server::AddPage() {
  for (const char* path : {"/", "/style.css", "/api.js", "/app.js", "/charts.js"})
    http_->Get(path, [path](const Request&, Response& response) {
      const Asset* asset = FindAsset(path);
      response.set_content(asset->text.data(), asset->text.size(), asset->type);
    });
  http_->Post("/api/login", [this](const Request& q, Response& r) { PostLogin(q, r); });
  OnPost("/api/logout", &Server::PostLogout);
  OnGet("/api/session", &Server::GetSession);
  OnGet("/api/databases", &Server::GetDatabases);
  OnGet("/api/samples", &Server::GetSamples);
  OnGet("/api/history", &Server::GetHistory);
  OnGet("/api/events", &Server::GetEvents);
  OnGet("/api/config", &Server::GetConfig);
  OnGet("/api/jobs", &Server::GetJobs);
  OnPost("/api/verify", &Server::PostVerify);
  OnPost("/api/snapshot", &Server::PostSnapshot);
  OnPost("/api/restore", &Server::PostRestore);
}

void Server::GetMetrics(const Request& request, Response& response) {
  if (!MayReadMetrics(request)) {
    response.set_header("WWW-Authenticate", "Bearer");
    return Refuse(response, 401, "give the bearer token of dashboard.metrics-token");
  }
  response.set_content(PrometheusText(monitor_), "text/plain; version=0.0.4; charset=utf-8");
}

void Server::GetHealth(const Request& request, Response& response) {
  const size_t problems = monitor_->Problems();
  ordered_json answer = {{"ok", problems == 0}, {"databases", monitor_->Databases().size()}, {"problems", problems}};
  if (problems != 0 && MayReadMetrics(request)) {
    for (const auto& status : monitor_->Databases())
      if (!status["problem"].is_null()) answer["why"][status["database"].get<std::string>()] = status["problem"];
  }
  Answer(response, problems == 0 ? 200 : 503, answer);
}

// --- session

void Server::PostLogin(const Request& request, Response& response) {
  const ordered_json body = ordered_json::parse(request.body, nullptr, false);
  if (!body.is_object()) return Refuse(response, 400, "give user and password");
  const auto answer = access_->Login(TextOf(body, "user"), TextOf(body, "password"), AddressOf(request));
  if (answer.retry_after > 0) {
    response.set_header("Retry-After", std::to_string(answer.retry_after));
    return Answer(response, 429,
                  {{"error", "Too many wrong passwords: wait " + std::to_string(answer.retry_after) + " seconds."},
                   {"retry_after", answer.retry_after}});
  }
  if (answer.token.empty()) return Refuse(response, 401, "User or password is wrong.");
  const std::string name = SecureCookies() ? "__Host-replica" : "replica";
  response.set_header("Set-Cookie", name + "=" + answer.token + "; Path=/; HttpOnly; SameSite=Strict" +
                                        (SecureCookies() ? "; Secure" : ""));
  Answer(response, 200,
         {{"user", answer.session.user}, {"csrf", answer.session.csrf}, {"version", LIBREPLICA_VERSION}});
}

void Server::PostLogout(const Request& request, Response& response) {
  const std::string name = SecureCookies() ? "__Host-replica" : "replica";
  access_->Logout(CookieOf(request, name));
  response.set_header("Set-Cookie",
                      name + "=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict" + (SecureCookies() ? "; Secure" : ""));
  Answer(response, 200, ordered_json::object());
}

void Server::GetSession(const Request& request, Response& response) {
  const auto session = SessionOf(request);
  if (!session) return Refuse(response, 401, "log in first");
  Answer(response, 200, {{"user", session->user}, {"csrf", session->csrf}, {"version", LIBREPLICA_VERSION}});
}

// --- looking

void Server::GetDatabases(const Request& /*request*/, Response& response) {
  Answer(response, 200,
         {{"now", FormatTime(SystemClock().WallMicros())},
          {"max_lag", monitor_->max_lag()},
          {"databases", monitor_->Databases()}});
}

void Server::GetSamples(const Request& request, Response& response) {
  const auto id = DatabaseOf(request.get_param_value("database"), monitor_->Paths().size());
  if (!id) return Refuse(response, 404, "there is no such database");
  const int64_t after = std::strtoll(request.get_param_value("after").c_str(), nullptr, 10);
  ordered_json samples = ordered_json::array();
  for (const Sample& s : monitor_->Samples(*id, after))
    samples.push_back({s.time, s.lag, s.commits, s.stored, s.puts, s.spool});
  Answer(response, 200, {{"interval", 1}, {"samples", samples}});
}

void Server::GetHistory(const Request& request, Response& response) {
  const auto paths = monitor_->Paths();
  const auto id = DatabaseOf(request.get_param_value("database"), paths.size());
  if (!id) return Refuse(response, 404, "there is no such database");
  auto history = monitor_->HistoryOf(paths[*id]);
  if (!history.ok())
    return Refuse(response, history.status().code() == Code::kTimeout ? 503 : 502, history.status().message());
  Answer(response, 200, *history);
}

void Server::GetEvents(const Request& request, Response& response) {
  const auto paths = monitor_->Paths();
  const auto id = DatabaseOf(request.get_param_value("database"), paths.size());
  if (!id) return Refuse(response, 404, "there is no such database");
  const auto events = EventLog::Read(Database::FolderOf(paths[*id]));
  const size_t first = events.size() > 200 ? events.size() - 200 : 0;
  ordered_json list = ordered_json::array();
  for (size_t i = first; i < events.size(); i++)
    list.push_back({{"time", events[i].time}, {"kind", events[i].kind}, {"message", events[i].message}});
  Answer(response, 200, {{"events", list}});
}

void Server::GetConfig(const Request& /*request*/, Response& response) {
  const ordered_json report = SettingsReport(session_->config());
  ordered_json settings = ordered_json::array();
  // What is given or needed; then what single databases have of their own.
  for (const auto& s : report["settings"]) {
    if (!s["set"].get<bool>() && !s["required"].get<bool>()) continue;
    settings.push_back(s);
  }
  for (const auto& database : report["databases"]) {
    const std::string what = database.value("path", database.value("folder", database.value("pattern", "")));
    for (const auto& s : database["settings"]) {
      ordered_json own = s;
      own["name"] = what + ": " + s["key"].get<std::string>();
      settings.push_back(own);
    }
  }
  Answer(response, 200,
         {{"file", report["file"]},
          {"settings", settings},
          {"databases", report["databases"]},
          {"warnings", report["warnings"]},
          {"missing", report["missing"]}});
}

void Server::GetJobs(const Request& /*request*/, Response& response) {
  Answer(response, 200, {{"jobs", jobs_->List()}});
}

// --- doing

void Server::StartJob(const std::string& kind, size_t database, const std::string& message, Jobs::Work work,
                      Response& response) {
  auto job = jobs_->Start(kind, database, message, std::move(work));
  if (job.ok()) return Answer(response, 200, {{"job", *job}});
  Refuse(response, job.status().code() == Code::kExists ? 409 : 503, job.status().message());
}

void Server::PostVerify(const Request& request, Response& response) {
  const auto paths = monitor_->Paths();
  const auto body = BodyOf(request, paths.size(), response);
  if (!body) return;
  const std::string depth = TextOf(*body, "depth");
  if (depth != "quick" && depth != "full" && depth != "objects")
    return Refuse(response, 400, "give the depth: quick, full or objects");
  const size_t id = (*body)["database"].get<size_t>();
  const std::string& path = paths[id];
  StartJob(
      "verify", id, depth + " verify of " + path,
      [path, depth](const Jobs::Tell& tell) -> Result<ordered_json> {
        REPLICA_ASSIGN(auto open, EnsureUploader(path));
        REPLICA_ASSIGN(const Json report, VerifyReport(path, depth, tell));
        return ordered_json(report);
      },
      response);
}

void Server::PostSnapshot(const Request& request, Response& response) {
  const auto paths = monitor_->Paths();
  const auto body = BodyOf(request, paths.size(), response);
  if (!body) return;
  const size_t id = (*body)["database"].get<size_t>();
  const std::string& path = paths[id];
  StartJob(
      "snapshot", id, "a snapshot of " + path,
      [path](const Jobs::Tell& tell) -> Result<ordered_json> {
        REPLICA_ASSIGN(auto open, EnsureUploader(path));
        REPLICA_ASSIGN(const uint64_t txid, MakeSnapshot(path, tell));
        return ordered_json{{"txid", txid}};
      },
      response);
}

void Server::PostRestore(const Request& request, Response& response) {
  const auto paths = monitor_->Paths();
  const auto body = BodyOf(request, paths.size(), response);
  if (!body) return;
  auto target = ParseTarget(TextOf(*body, "target"));
  if (!target.ok()) return Refuse(response, 400, target.status().message());
  const std::string name = TextOf(*body, "file");
  if (const std::string error = NameError(name); !error.empty()) return Refuse(response, 400, error);
  const size_t id = (*body)["database"].get<size_t>();
  const std::string& path = paths[id];
  const std::string file = ParentFolder(path) + "/" + name;
  if (FileExists(file)) return Refuse(response, 409, file + " exists: a restore never overwrites");
  StartJob(
      "restore", id, "restore of " + path + " to " + file,
      [this, path, file, target = *target](const Jobs::Tell& tell) -> Result<ordered_json> {
        REPLICA_TRY(ActAsOwner(ParentFolder(file)));
        REPLICA_ASSIGN(auto store, session_->StoreOf(path));
        REPLICA_ASSIGN(const RestoredDatabase restored, RestoreDatabase(store.get(), target, file, tell));
        return ordered_json(RestoreReport(file, store->url(), restored));
      },
      response);
}

}  // namespace replica
