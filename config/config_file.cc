#include "config/config_file.h"

#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <filesystem>
#include <map>
#include <set>
#include <sstream>

#include "base/fs.h"
#include "config/file_keys.h"
#include "config/litestream_url.h"
#include "config/parse.h"

namespace replica {
namespace {

constexpr uint64_t kMostBytes = 4 << 20;
constexpr int kMostMerges = 8;  // maps that merge maps
constexpr int kMostMaps = 10000;
constexpr size_t kMaxText = 64 << 10;  // bytes of one value, its variables replaced

bool IsNameCharacter(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

class Reader {
 public:
  Reader(const FoundConfig& found, const Environment& environment)
      : path_(found.path), named_(found.named), environment_(environment) {}

  Result<ConfigFile> Read() {
    auto text = ReadText();
    // Whatever is wrong with it, it is the input that is.
    if (!text.ok()) return Invalid("configuration file: " + text.status().message());
    try {
      REPLICA_TRY(CheckOneDocument(*text));
      const YAML::Node document = YAML::Load(*text);
      if (document.IsNull()) return std::move(file_);
      REPLICA_TRY(ReadTop(document));
    } catch (const YAML::Exception& e) {
      return Invalid(path_ + ":" + std::to_string(e.mark.line + 1) + ": this is not valid YAML: " + e.msg);
    }
    if (secret_in_clear_ && others_read_)
      file_.warnings.push_back(path_ + " holds a secret and can be read by every user: run chmod o-r on it");
    return std::move(file_);
  }

 private:
  // Where documents begin; what is in them does not matter.
  class Documents : public YAML::EventHandler {
   public:
    void OnDocumentStart(const YAML::Mark& mark) override { last = mark; }
    void OnDocumentEnd() override {}
    void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
    void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
    void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
    void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
    void OnSequenceEnd() override {}
    void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
    void OnMapEnd() override {}
    YAML::Mark last;
  };

  // Asks for two documents and no more: of some texts that are not YAML (",") yaml-cpp makes documents without end.
  Status CheckOneDocument(const std::string& text) const {
    std::istringstream in(text);
    YAML::Parser parser(in);
    Documents documents;
    if (!parser.HandleNextDocument(documents)) return Ok();
    const YAML::Mark first = documents.last;
    if (!parser.HandleNextDocument(documents)) return Ok();
    const std::string place = path_ + ":" + std::to_string(documents.last.line + 1) + ": ";
    return documents.last.pos == first.pos ? Invalid(place + "this is not valid YAML")
                                           : Invalid(place + "a second document begins here: only one is read");
  }

  Result<std::string> ReadText() {
    // A file that was only found may be a pipe that somebody else put there: opening it must not wait for a writer.
    REPLICA_ASSIGN(UniqueFd fd, OpenFile(path_, O_RDONLY | (named_ ? 0 : O_NONBLOCK | O_NOCTTY)));
    struct stat st {};
    if (::fstat(fd.get(), &st) != 0) return ErrnoStatus(errno, "stat", path_);
    if (!named_ && !S_ISREG(st.st_mode))
      return Invalid(path_ +
                     " was found, and is not a regular file: name it in REPLICA_CONFIG if it is to be used, else "
                     "set REPLICA_CONFIG=off");
    if (S_ISREG(st.st_mode)) {
      if ((st.st_mode & S_IWOTH) != 0) return Invalid(path_ + " can be written by anybody: run chmod o-w on it");
      others_read_ = (st.st_mode & S_IROTH) != 0;
    }
    const bool ours = st.st_uid == ::geteuid() || st.st_uid == 0;
    if (!named_ && (!ours || ((st.st_mode & S_IWGRP) != 0 && st.st_gid != ::getegid())))
      return Invalid(path_ + " was found, but " + (ours ? "a group" : "another user, its owner,") +
                     " can write to it: name it in REPLICA_CONFIG if it is to be used, else set REPLICA_CONFIG=off");
    return ReadWhole(fd.get(), kMostBytes, path_);
  }

  std::string Place(const YAML::Node& node) const { return path_ + ":" + std::to_string(node.Mark().line + 1); }
  Status Wrong(const YAML::Node& node, const std::string& what) const { return Invalid(Place(node) + ": " + what); }

  // A scalar with its variables replaced. `undefined`: the first that has no value.
  Result<std::string> Text(const std::string& key, const YAML::Node& node, std::string* undefined) {
    if (!node.IsScalar()) return Wrong(node, key + ": give one value, not a list or a map");
    const std::string& raw = node.Scalar();
    // A crypt(5) hash is full of dollar signs that are no variables.
    if (key == "dashboard.password-hash" && raw.rfind("${", 0) != 0) return raw;
    std::string out;
    for (size_t i = 0; i < raw.size();) {
      if (raw[i] != '$' || i + 1 == raw.size()) {
        out += raw[i++];
        continue;
      }
      if (raw[i + 1] == '$') {
        out += '$';
        i += 2;
        continue;
      }
      const bool braces = raw[i + 1] == '{';
      const size_t begin = i + (braces ? 2 : 1);
      size_t end = begin;
      while (end < raw.size() && IsNameCharacter(raw[end])) end++;
      if (end == begin || (braces && (end == raw.size() || raw[end] != '}'))) {
        if (braces)
          return Wrong(node, key + ": \"${\" must be followed by a variable's name and \"}\" (defaults, as in " +
                                 "${NAME:-text}, are not supported; a dollar sign itself is \"$$\")");
        out += raw[i++];
        continue;
      }
      const std::string name = raw.substr(begin, end - begin);
      auto found = environment_.find(name);
      if (name == "PID") {
        out += std::to_string(::getpid());  // as Litestream has it, whatever the environment says
      } else if (found != environment_.end() && !found->second.empty()) {
        out += found->second;
      } else if (undefined->empty()) {
        *undefined = name;
      }
      i = end + (braces ? 1 : 0);
      if (out.size() > kMaxText) return Wrong(node, key + ": longer than " + std::to_string(kMaxText) + " bytes");
    }
    return out;
  }

  // A value without which nothing can be replicated: a variable that is not set is noted as missing.
  Status Needed(const std::string& key, const YAML::Node& node, std::string* out, std::vector<std::string>* missing) {
    if (node.IsNull()) return Ok();
    std::string undefined;
    REPLICA_ASSIGN(*out, Text(key, node, &undefined));
    for (char c : *out)
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) return Wrong(node, key + ": it holds a control character");
    if (undefined.empty()) return Ok();
    out->clear();
    missing->push_back(undefined + " (" + Place(node) + ": " + key + ")");
    return Ok();
  }

  Status TakeSetting(const Setting& setting, const YAML::Node& node, Values* values) {
    if (node.IsNull()) return Ok();
    std::string undefined;
    REPLICA_ASSIGN(std::string text, Text(setting.key, node, &undefined));
    if (!undefined.empty()) {
      file_.warnings.push_back(Place(node) + ": " + setting.key + ": the variable " + undefined +
                               " is not set; the setting counts as not given (a dollar sign itself is \"$$\")");
      return Ok();
    }
    if (text.empty()) {
      file_.warnings.push_back(Place(node) + ": " + setting.key + " is empty; the setting counts as not given");
      return Ok();
    }
    secret_in_clear_ = secret_in_clear_ || (setting.secret && node.Scalar() == text);
    Values one = {{setting.key, {text, Place(node)}}};
    AttachOptions scratch;
    REPLICA_TRY(ApplyValues(one, &scratch));
    (*values)[setting.key] = one[setting.key];
    return Ok();
  }

  // Calls `structure` for the keys that are no settings; takes the settings into `values`.
  template <typename Structure>
  Status ReadMap(const YAML::Node& map, KeyLevel level, const std::string& section, Values* values,
                 const Structure& structure) {
    if (!map.IsMap()) return Wrong(map, (section.empty() ? "this" : section) + ": give a map of settings");
    std::set<std::string> seen;
    std::vector<std::pair<YAML::Node, YAML::Node>> items;
    REPLICA_TRY(Gather(map, 0, &seen, &items));
    for (const auto& [key, value] : items) REPLICA_TRY(ReadItem(key.Scalar(), key, value, level, values, structure));
    return Ok();
  }

  // The map's items, and those of the maps that it merges ("<<: *defaults") where it does not give them itself.
  Status Gather(const YAML::Node& map, int depth, std::set<std::string>* seen,
                std::vector<std::pair<YAML::Node, YAML::Node>>* items) {
    if (!map.IsMap() || depth > kMostMerges || ++merges_ > kMostMaps)
      return Wrong(map, "<<: give a map to merge, not too many of them");
    std::set<std::string> here;
    std::vector<YAML::Node> merged;
    for (const auto& item : map) {
      if (!item.first.IsScalar()) return Wrong(item.first, "a key must be a name");
      const std::string key = item.first.Scalar();
      if (!here.insert(key).second) return Wrong(item.first, key + " is given twice");
      if (key == "<<" && item.second.IsSequence()) {
        for (const auto& one : item.second) merged.push_back(one);
      } else if (key == "<<") {
        merged.push_back(item.second);
      } else if (seen->insert(key).second) {
        items->emplace_back(item.first, item.second);
      }
    }
    for (const YAML::Node& one : merged) REPLICA_TRY(Gather(one, depth + 1, seen, items));
    return Ok();
  }

  template <typename Structure>
  Status ReadItem(const std::string& key, const YAML::Node& key_node, const YAML::Node& value, KeyLevel level,
                  Values* values, const Structure& structure) {
    if (const FileKey* other = FindFileKey(key, level); other != nullptr) {
      switch (other->use) {
        case FileKey::kStructure:
          return structure(key, value);
        case FileKey::kAlias:
          return TakeSetting(*FindSetting(other->text), value, values);
        case FileKey::kUnneeded:
          file_.warnings.push_back(Place(key_node) + ": " + key + " is not needed here: " + other->text);
          return Ok();
        case FileKey::kUnsupported:
          file_.warnings.push_back(Place(key_node) + ": " + key + " is not supported: " + other->text);
          return Ok();
        case FileKey::kRefused:
          if (IsOff(value)) return Ok();
          return Wrong(key_node, key + ": " + other->text);
      }
    }
    if (level == kTop && key.rfind("x-", 0) == 0) return Ok();  // where YAML files keep what they merge elsewhere
    const Setting* setting = FindSetting(level == kDashboardSection ? "dashboard." + key : key);
    const bool dotted = key.find('.') != std::string::npos;
    const bool fits = setting != nullptr && !dotted && level != kSnapshotSection &&
                      (setting->scope == SettingScope::kDatabase || level == kTop || level == kDashboardSection);
    if (fits) return TakeSetting(*setting, value, values);
    return Wrong(key_node, "there is no setting \"" + key + "\"" + Hint(key, setting != nullptr));
  }

  // "skip-verify: false", "age: {identities: []}" and the like ask for nothing.
  static bool IsOff(const YAML::Node& value) {
    if (value.IsScalar()) return value.Scalar().empty() || value.Scalar() == "false";
    if (!value.IsMap()) return value.IsNull() || value.size() == 0;
    for (const auto& item : value)
      if (item.second.IsMap() ? item.second.size() != 0 : !IsOff(item.second)) return false;
    return true;
  }

  static std::string Hint(const std::string& key, bool elsewhere) {
    if (elsewhere) return " here; it is one for the whole file: put it at the top level";
    for (unsigned level : {kTop, kDatabase, kReplica})
      if (FindFileKey(key, static_cast<KeyLevel>(level)) != nullptr)
        return level == kTop        ? " here; it belongs at the top level"
               : level == kDatabase ? " here; it belongs to an entry of dbs"
                                    : " here; it belongs to a replica";
    return "; `replica config --all` lists the known ones";
  }

  Status ReadTop(const YAML::Node& root) {
    if (!root.IsMap()) return Wrong(root, "give a map of settings");
    // Replicas without a bucket of their own lie in this one.
    if (root["bucket"] && root["bucket"].IsScalar()) bucket_ = root["bucket"];
    return ReadMap(root, kTop, "", &file_.values, [&](const std::string& key, const YAML::Node& value) -> Status {
      if (key == "dbs") return ReadDatabases(value);
      if (key == "url" || key == "bucket") {
        std::string text;
        REPLICA_TRY(Needed(key, value, &text, &file_.missing));
        if (!text.empty()) file_.values[key] = {text, Place(value)};
        if (file_.values.count("url") + file_.values.count("bucket") == 2)
          return Wrong(value, "give either \"url:\" or \"bucket:\"");
        return Ok();
      }
      if (value.IsNull()) return Ok();
      const KeyLevel level = key == "snapshot" ? kSnapshotSection : kDashboardSection;
      return ReadMap(value, level, key, &file_.values, [](const std::string&, const YAML::Node&) { return Ok(); });
    });
  }

  Status ReadDatabases(const YAML::Node& list) {
    if (list.IsNull()) return Ok();
    file_.lists_from = Place(list);
    if (!list.IsSequence()) return Wrong(list, "dbs: give a list, each entry beginning with \"- path:\"");
    for (const auto& node : list) {
      FileEntry entry;
      entry.place = Place(node);
      REPLICA_TRY(ReadDatabase(node, &entry));
      file_.databases.push_back(std::move(entry));
    }
    return Ok();
  }

  Status ReadDatabase(const YAML::Node& node, FileEntry* entry) {
    int replicas = 0;
    bool url_given = false;
    Values of_replica;
    auto structure = [&](const std::string& key, const YAML::Node& value) -> Status {
      if (key == "path") {
        REPLICA_TRY(Needed(key, value, &entry->path, &entry->missing));
        for (const std::string scheme : {"sqlite://", "sqlite3://"})
          if (entry->path.rfind(scheme, 0) == 0) entry->path.erase(0, scheme.size());
        return Ok();
      }
      if (key == "dir") return Needed(key, value, &entry->folder, &entry->missing);
      if (key == "pattern") return Needed(key, value, &entry->pattern, &entry->missing);
      if (key == "url") {
        url_given = true;
        return Needed(key, value, &entry->url, &entry->missing);
      }
      if (key == "recursive" || key == "restore-if-db-not-exists") {
        std::string undefined;
        REPLICA_ASSIGN(std::string text, Text(key, value, &undefined));
        bool flag = false;
        Status status = ParseFlag(text, &flag);
        if (!status.ok()) return Wrong(value, key + ": " + status.message());
        if (key == "recursive") entry->recursive = flag;
        if (key != "recursive" && flag) entry->values["restore"] = {"auto", Place(value)};
        return Ok();
      }
      if (value.IsNull()) return Ok();
      if (key == "snapshot")
        return ReadMap(value, kSnapshotSection, key, &entry->values,
                       [](const std::string&, const YAML::Node&) { return Ok(); });
      if (key == "replicas" && !value.IsSequence())
        return Wrong(value, "replicas: give a list, or \"replica:\" with one map");
      if (key == "replica") {
        replicas++;
        return ReadReplica(value, entry, &of_replica);
      }
      for (const auto& replica : value) {
        if (++replicas > 1)
          return Wrong(replica,
                       "a database has one replica here: remove the others (a second copy can be a bucket's "
                       "own replication)");
        REPLICA_TRY(ReadReplica(replica, entry, &of_replica));
      }
      return Ok();
    };
    REPLICA_TRY(ReadMap(node, kDatabase, "dbs", &entry->values, structure));
    if (replicas > 1) return Wrong(node, "give either \"replica:\" or \"replicas:\"");
    if (replicas == 1 && url_given) return Wrong(node, "give either \"url:\" or \"replica:\"");
    for (const auto& [key, value] : of_replica) entry->values[key] = value;
    if (!entry->missing.empty()) return Ok();
    if (entry->path.empty() == entry->folder.empty())
      return Wrong(node, "dbs: each entry needs a \"path:\", or \"dir:\" with \"pattern:\"");
    if (!entry->folder.empty() && entry->pattern.empty())
      return Wrong(node, "dir: give a \"pattern:\" too, as in \"*.db\"");
    if (entry->folder.empty() && !entry->pattern.empty()) return Wrong(node, "pattern: give a \"dir:\" too");
    return Ok();
  }

  // What the URL says in Litestream's way becomes settings; what the file gives beside it counts more.
  Status TakeUrlForm(const YAML::Node& node, std::string* url, Values* values) {
    auto form = ParseLitestreamUrl(*url);
    if (!form.ok()) return form.status().In(Place(node));
    for (const std::string& warning : form->warnings) file_.warnings.push_back(Place(node) + ": " + warning);
    for (const auto& [key, text] : form->settings) {
      if (values->count(key) != 0) continue;
      Values one = {{key, {text, Place(node)}}};
      AttachOptions scratch;
      REPLICA_TRY(ApplyValues(one, &scratch));
      values->merge(one);
    }
    *url = form->url;
    return Ok();
  }

  Status ReadReplica(const YAML::Node& node, FileEntry* entry, Values* values) {
    std::string type;
    std::string bucket;
    std::string path;
    std::string url;
    REPLICA_TRY(ReadMap(node, kReplica, "replica", values, [&](const std::string& key, const YAML::Node& v) {
      if (key == "type") return Needed(key, v, &type, &entry->missing);
      if (key == "bucket") return Needed(key, v, &bucket, &entry->missing);
      if (key == "path") return Needed(key, v, &path, &entry->missing);
      return Needed(key, v, &url, &entry->missing);
    }));
    if (bucket.empty() && url.empty() && bucket_ && (type == "s3" || type.empty()))
      REPLICA_TRY(Needed("bucket", bucket_, &bucket, &entry->missing));
    if (!url.empty()) {
      REPLICA_TRY(TakeUrlForm(node, &url, values));
      if (!bucket.empty() || !path.empty()) return Wrong(node, "give either \"url:\", or \"bucket:\" and \"path:\"");
      if (!type.empty() && url.rfind(type + "://", 0) != 0)
        return Wrong(node, "the type is " + type + ", the url is of another");
      auto parsed = ParseUrl(url);
      if (!parsed.ok()) return parsed.status().In(Place(node));
    } else if (type == "s3" || (type.empty() && !bucket.empty())) {
      if (bucket.empty() && entry->missing.empty()) return Wrong(node, "a replica in S3 needs a \"bucket:\"");
      if (!bucket.empty()) url = "s3://" + bucket + (TrimSlashes(path).empty() ? "" : "/" + TrimSlashes(path));
    } else if (type == "file" || (type.empty() && !path.empty())) {
      if (path.empty() && entry->missing.empty()) return Wrong(node, "a replica in a folder needs a \"path:\"");
      std::error_code error;
      if (!path.empty())
        url = "file://" + std::filesystem::absolute(ExpandHome(path), error).lexically_normal().string();
    } else if (!type.empty()) {
      return Wrong(node,
                   "type: \"" + type + "\" is not supported; there are s3 (also other stores that speak it) and file");
    }
    if (!url.empty()) entry->url = url;
    entry->in_folder = type == "file";
    return Ok();
  }

  const std::string path_;
  const bool named_;
  YAML::Node bucket_{YAML::NodeType::Undefined};  // of the top level
  const Environment& environment_;
  ConfigFile file_;
  int merges_ = 0;
  bool secret_in_clear_ = false;
  bool others_read_ = false;
};

}  // namespace

FoundConfig FindConfigFile(const Environment& environment) {
  for (const char* name : {"REPLICA_CONFIG", "LITESTREAM_CONFIG"}) {
    auto found = environment.find(name);
    if (found != environment.end() && !found->second.empty())
      return {found->second == "off" ? "" : found->second, true};
  }
  // In a program with more rights than its caller the caller chooses the working directory.
  const bool secure = ::getauxval(AT_SECURE) != 0;
  for (const char* folder : {"", "config/", "/etc/"})
    if (!secure || *folder == '/')
      for (const char* name : {"replica.yml", "litestream.yml"})
        if (FileExists(std::string(folder) + name)) return {std::string(folder) + name, false};
  return {};
}

Result<ConfigFile> ReadConfigFile(const FoundConfig& found, const Environment& environment) {
  return Reader(found, environment).Read();
}

}  // namespace replica
