#include "cli/dashboard/metrics.h"

#include <cmath>
#include <functional>
#include <iomanip>
#include <sstream>

#include "base/clock.h"
#include "base/control_block.h"
#include "ext/hub.h"

namespace replica {
namespace {

using nlohmann::ordered_json;

std::string LabelValue(const std::string& bytes) {
  // A name need not be UTF-8; one that is not would cost the whole scrape.
  const std::string quoted = ordered_json(bytes).dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  const auto text = ordered_json::parse(quoted).get<std::string>();
  std::string out;
  for (char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out;
}

class Writer {
 public:
  explicit Writer(ordered_json databases) : databases_(std::move(databases)) { out_ << std::setprecision(15); }

  using Value = std::function<double(const ordered_json& status)>;

  void Head(const std::string& name, const char* type, const char* help) {
    out_ << "# HELP " << name << " " << help << "\n# TYPE " << name << " " << type << "\n";
  }
  void Line(const std::string& name, const ordered_json& status, const std::string& labels, double value) {
    out_ << name << "{database=\"" << LabelValue(status["database"].get<std::string>()) << "\"" << labels << "} "
         << value << "\n";
  }
  void Raw(const std::string& text) { out_ << text; }
  // One line a database that has `key`; without a key, one for each.
  void Each(const std::string& name, const char* type, const char* help, const char* key, const Value& value) {
    Head(name, type, help);
    for (const auto& status : databases_)
      if (*key == 0 || (status.contains(key) && !status[key].is_null())) Line(name, status, "", value(status));
  }
  void Number(const std::string& name, const char* type, const char* help, const char* key) {
    Each(name, type, help, key, [key](const ordered_json& s) { return s[key].get<double>(); });
  }

  void Histograms(const std::string& name, const char* help, Histogram ControlBlock::*member) {
    Head(name, "histogram", help);
    for (const auto& status : databases_) {
      auto database = Hub::Get().FindDatabase(status["database"].get<std::string>());
      if (database == nullptr) continue;
      const Histogram& h = database->control()->*member;
      uint64_t count = 0;
      for (size_t i = 0; i < h.counts.size(); i++) {
        count += h.counts[i].load(std::memory_order_relaxed);
        std::ostringstream bound;
        if (i < kHistogramBounds.size()) {
          bound << static_cast<double>(kHistogramBounds[i]) / 1e6;
        } else {
          bound << "+Inf";
        }
        Line(name + "_bucket", status, ",le=\"" + bound.str() + "\"", static_cast<double>(count));
      }
      Line(name + "_sum", status, "", static_cast<double>(h.sum.load(std::memory_order_relaxed)) / 1e6);
      Line(name + "_count", status, "", static_cast<double>(count));
    }
  }

  const ordered_json& databases() const { return databases_; }
  std::string Text() const { return out_.str(); }

 private:
  const ordered_json databases_;
  std::ostringstream out_;
};

}  // namespace

std::string PrometheusText(Monitor* monitor) {
  Writer m(monitor->Databases());
  m.Head("libreplica_info", "gauge", "Version of the command that answers.");
  m.Raw("libreplica_info{version=\"" LIBREPLICA_VERSION "\"} 1\n");
  m.Each("libreplica_healthy", "gauge", "1: the database needs no attention (as /healthz has it).", "healthy",
         [](const ordered_json& s) { return s["healthy"].get<bool>() ? 1.0 : 0.0; });
  m.Head("libreplica_state", "gauge", "1 for the state that the replica is in.");
  for (const auto& status : m.databases())
    for (const char* state : {"off", "snapshot", "streaming", "behind", "resync", "fenced", "error"})
      m.Line("libreplica_state", status, std::string(",state=\"") + state + "\"", status["state"] == state ? 1 : 0);
  m.Each("libreplica_uploader", "gauge", "1: a process uploads the database.", "",
         [](const ordered_json& s) { return s.contains("leader") && !s["leader"].is_null() ? 1.0 : 0.0; });
  m.Head("libreplica_txid", "gauge", "The last commit: committed, captured (in the spool), acknowledged (restorable).");
  for (const auto& status : m.databases())
    if (status.contains("txid"))
      for (const char* position : {"committed", "captured", "acknowledged"})
        m.Line("libreplica_txid", status, std::string(",position=\"") + position + "\"",
               status["txid"][position].is_number() ? status["txid"][position].get<double>() : std::nan(""));
  // Absent as long as nobody knows them: no leader has found its place in the history since the machine's start.
  m.Head("libreplica_lag_seconds", "gauge", "Age of the oldest commit that is not acknowledged.");
  for (const auto& status : m.databases())
    if (status.contains("lag") && status["lag"]["seconds"].is_number())
      m.Line("libreplica_lag_seconds", status, "", status["lag"]["seconds"].get<double>());
  m.Head("libreplica_lag_txids", "gauge", "Commits that are not acknowledged.");
  for (const auto& status : m.databases())
    if (status.contains("lag") && status["lag"]["txids"].is_number())
      m.Line("libreplica_lag_txids", status, "", status["lag"]["txids"].get<double>());
  m.Each("libreplica_last_acknowledged_timestamp_seconds", "gauge", "When the store last acknowledged something.",
         "last_acknowledged", [](const ordered_json& s) {
           int64_t micros = 0;
           (void)ParseTime(s["last_acknowledged"].get<std::string>(), &micros);
           return static_cast<double>(micros) / 1e6;
         });
  m.Number("libreplica_puts_total", "counter", "PUTs started.", "puts");
  m.Number("libreplica_put_errors_total", "counter", "PUTs that failed.", "put_errors");
  m.Number("libreplica_captured_bytes_total", "counter", "Page bytes captured.", "bytes_raw");
  m.Number("libreplica_stored_bytes_total", "counter", "Bytes of segments and snapshots acknowledged.", "bytes_stored");
  m.Number("libreplica_spool_bytes", "gauge", "Bytes captured on local disk and not acknowledged.", "spool_bytes");
  m.Number("libreplica_database_bytes", "gauge", "Size of the database file.", "database_bytes");
  m.Histograms("libreplica_put_duration_seconds", "From the start of a PUT to its good answer.",
               &ControlBlock::put_time);
  m.Histograms("libreplica_acknowledge_duration_seconds",
               "From the first commit of a log segment to its acknowledgement.", &ControlBlock::acknowledge_time);
  m.Histograms("libreplica_snapshot_duration_seconds", "From the start of a snapshot to its acknowledgement.",
               &ControlBlock::snapshot_time);
  return m.Text();
}

}  // namespace replica
