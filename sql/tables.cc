#include "sql/tables.h"

#include <functional>
#include <memory>
#include <new>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "ext/hub.h"
#include "sql/report.h"
#include "uploader/event_log.h"
#include "uploader/history.h"

namespace replica {
namespace {

using Value = std::variant<std::monostate, int64_t, double, std::string>;
using Rows = std::vector<std::vector<Value>>;

// An eponymous, read-only table whose rows are made when it is read. Its last column is hidden and named `schema`: the
// argument of the table-valued form, "main" by default.
struct TableModule {
  const char* name;
  const char* declaration;
  int hidden_column;  // -1: none
  Result<Rows> (*fill)(sqlite3* db, const std::string& schema);
};

struct Table {
  sqlite3_vtab base;  // first: SQLite's handle
  sqlite3* db;
  const TableModule* module;
};

struct Cursor {
  sqlite3_vtab_cursor base;  // first: SQLite's handle
  Rows rows;
  size_t at;
  std::string schema;
};

Value FromJson(const Json* v) {
  if (v == nullptr) return std::monostate();
  if (const auto number = v->integer()) return *number;
  if (v->real() != nullptr) return *v->real();
  if (v->text() != nullptr) return *v->text();
  return std::monostate();
}

// Not by an initializer list: see Json::Of.
template <typename... Values>
void AddRow(Rows* rows, Values&&... values) {
  auto& row = rows->emplace_back();
  row.reserve(sizeof...(values));
  (row.emplace_back(std::forward<Values>(values)), ...);
}

Result<Rows> FillDatabases(sqlite3* /*db*/, const std::string& /*schema*/) {
  Rows rows;
  for (const std::string& path : Hub::Get().Paths()) {
    const Json s = StatusReport(path);
    auto get = [&](const char* name) { return FromJson(s.Find(name)); };
    auto inner = [&](const char* outer, const char* name) {
      const Json* object = s.Find(outer);
      return object == nullptr ? Value() : FromJson(object->Find(name));
    };
    const Value error = s.contains("last_error")       ? get("last_error")
                        : s.TextOf("state") == "error" ? get("message")
                                                       : Value();
    AddRow(&rows, path, get("replica"), get("generation"), get("state"), inner("txid", "committed"),
           inner("txid", "captured"), inner("txid", "acknowledged"), inner("lag", "txids"), inner("lag", "bytes"),
           inner("lag", "seconds"), get("leader_pid"), get("last_acknowledged"), error, get("error_since"), get("puts"),
           get("bytes_raw"), get("bytes_stored"), get("spool_bytes"));
  }
  return rows;
}

Result<Rows> FillHistory(sqlite3* db, const std::string& schema) {
  REPLICA_ASSIGN(std::string path, SchemaPath(db, schema));
  if (Hub::Get().FindDatabase(path) == nullptr) return NotReplicated(path);
  REPLICA_ASSIGN(auto store, Hub::Get().StoreFor(path));
  REPLICA_ASSIGN(History history, HistoryReader(store.get()).Read(0));
  Rows rows;
  for (const HistoryEntry& entry : history.entries) {
    // The columns are the report's fields in their order.
    std::vector<Value> row;
    const Json report = HistoryReport(*store, entry);
    for (const auto& [name, value] : report.members()) row.push_back(FromJson(&value));
    rows.push_back(std::move(row));
  }
  return rows;
}

Result<Rows> FillEvents(sqlite3* db, const std::string& schema) {
  REPLICA_ASSIGN(std::string path, SchemaPath(db, schema));
  Rows rows;
  for (const Event& event : EventLog::Read(Database::FolderOf(path)))
    AddRow(&rows, event.time, event.kind, event.message);
  return rows;
}

constexpr TableModule kModules[] = {
    {"replica_databases",
     "CREATE TABLE x(path TEXT, replica TEXT, generation TEXT, state TEXT, txid_committed INT, txid_captured INT, "
     "txid_acknowledged INT, lag_txids INT, lag_bytes INT, lag_seconds REAL, leader_pid INT, last_acknowledged TEXT, "
     "last_error TEXT, error_since TEXT, puts INT, bytes_raw INT, bytes_stored INT, spool_bytes INT)",
     -1, FillDatabases},
    {"replica_history",
     "CREATE TABLE x(kind TEXT, generation TEXT, sequence INT, min_txid INT, max_txid INT, restorable TEXT, "
     "first_time TEXT, last_time TEXT, pages INT, bytes INT, object TEXT, schema TEXT HIDDEN)",
     11, FillHistory},
    {"replica_events", "CREATE TABLE x(time TEXT, kind TEXT, message TEXT, schema TEXT HIDDEN)", 3, FillEvents},
};

// --- sqlite3_module, in the order of the struct

extern "C" {

static int TableConnect(sqlite3* db, void* module, int, const char* const*, sqlite3_vtab** out, char**) noexcept {
  const auto* m = static_cast<const TableModule*>(module);
  const int rc = sqlite3_declare_vtab(db, m->declaration);
  if (rc != SQLITE_OK) return rc;
  sqlite3_vtab_config(db, SQLITE_VTAB_DIRECTONLY);
  auto* table = new (std::nothrow) Table{};
  if (table == nullptr) return SQLITE_NOMEM;
  table->db = db;
  table->module = m;
  *out = &table->base;
  return SQLITE_OK;
}

static int TableBestIndex(sqlite3_vtab* vtab, sqlite3_index_info* info) noexcept {
  const TableModule* m = reinterpret_cast<Table*>(vtab)->module;
  for (int i = 0; i < info->nConstraint; i++) {
    const auto& c = info->aConstraint[i];
    if (c.iColumn != m->hidden_column || m->hidden_column < 0 || c.op != SQLITE_INDEX_CONSTRAINT_EQ) continue;
    if (c.usable == 0) return SQLITE_CONSTRAINT;
    info->aConstraintUsage[i].argvIndex = 1;
    info->aConstraintUsage[i].omit = 1;
    break;
  }
  info->estimatedCost = 1000;
  return SQLITE_OK;
}

static int TableDisconnect(sqlite3_vtab* vtab) noexcept {
  delete reinterpret_cast<Table*>(vtab);
  return SQLITE_OK;
}

static int TableOpen(sqlite3_vtab*, sqlite3_vtab_cursor** out) noexcept {
  auto* cursor = new (std::nothrow) Cursor{};
  if (cursor == nullptr) return SQLITE_NOMEM;
  *out = &cursor->base;
  return SQLITE_OK;
}

static int TableClose(sqlite3_vtab_cursor* cursor) noexcept {
  delete reinterpret_cast<Cursor*>(cursor);
  return SQLITE_OK;
}

static int TableFilter(sqlite3_vtab_cursor* cursor, int, const char*, int argc, sqlite3_value** argv) noexcept {
  auto* c = reinterpret_cast<Cursor*>(cursor);
  auto* table = reinterpret_cast<Table*>(cursor->pVtab);
  c->at = 0;
  c->schema = "main";
  if (argc > 0 && sqlite3_value_text(argv[0]) != nullptr)
    c->schema = reinterpret_cast<const char*>(sqlite3_value_text(argv[0]));
  std::string error;
  try {
    auto rows = table->module->fill(table->db, c->schema);
    if (rows.ok()) {
      c->rows = std::move(*rows);
      return SQLITE_OK;
    }
    error = rows.status().message();
  } catch (const std::exception& e) {
    error = e.what();
  }
  table->base.zErrMsg = sqlite3_mprintf("libreplica: %s", error.c_str());
  return SQLITE_ERROR;
}

static int TableNext(sqlite3_vtab_cursor* cursor) noexcept {
  reinterpret_cast<Cursor*>(cursor)->at++;
  return SQLITE_OK;
}

static int TableEof(sqlite3_vtab_cursor* cursor) noexcept {
  auto* c = reinterpret_cast<Cursor*>(cursor);
  return c->at >= c->rows.size() ? 1 : 0;
}

static int TableColumn(sqlite3_vtab_cursor* cursor, sqlite3_context* context, int column) noexcept {
  auto* c = reinterpret_cast<Cursor*>(cursor);
  const auto& row = c->rows[c->at];
  if (static_cast<size_t>(column) >= row.size()) {
    sqlite3_result_text(context, c->schema.c_str(), -1, SQLITE_TRANSIENT);
    return SQLITE_OK;
  }
  const Value& value = row[static_cast<size_t>(column)];
  if (const auto* i = std::get_if<int64_t>(&value)) {
    sqlite3_result_int64(context, *i);
  } else if (const auto* d = std::get_if<double>(&value)) {
    sqlite3_result_double(context, *d);
  } else if (const auto* s = std::get_if<std::string>(&value)) {
    sqlite3_result_text(context, s->data(), static_cast<int>(s->size()), SQLITE_TRANSIENT);
  }
  return SQLITE_OK;
}

static int TableRowid(sqlite3_vtab_cursor* cursor, sqlite3_int64* rowid) noexcept {
  *rowid = static_cast<sqlite3_int64>(reinterpret_cast<Cursor*>(cursor)->at) + 1;
  return SQLITE_OK;
}

}  // extern "C"

sqlite3_module MakeModule() {
  sqlite3_module m{};
  m.iVersion = 0;
  m.xConnect = TableConnect;  // no xCreate: eponymous only
  m.xBestIndex = TableBestIndex;
  m.xDisconnect = TableDisconnect;
  m.xOpen = TableOpen;
  m.xClose = TableClose;
  m.xFilter = TableFilter;
  m.xNext = TableNext;
  m.xEof = TableEof;
  m.xColumn = TableColumn;
  m.xRowid = TableRowid;
  return m;
}

}  // namespace

int RegisterTables(sqlite3* db) {
  static const sqlite3_module module = MakeModule();
  for (const TableModule& m : kModules) {
    const int rc = sqlite3_create_module_v2(db, m.name, &module, const_cast<TableModule*>(&m), nullptr);
    if (rc != SQLITE_OK) return rc;
  }
  return SQLITE_OK;
}

}  // namespace replica
