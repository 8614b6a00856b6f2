#include "base/json.h"

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

namespace replica {
namespace {

constexpr size_t kMaxDepth = 16;  // a destructor goes down as deep as the document

// Of a text alone nlohmann's destructor allocates nothing.
std::string Quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

template <typename T>
std::string Digits(T number) {
  char text[64];
  const auto end = std::to_chars(text, text + sizeof text, number);
  return {text, end.ptr};
}

}  // namespace

// Takes a document from nlohmann's parser without a tree of its own.
class Json::Builder {
 public:
  using number_integer_t = nlohmann::json::number_integer_t;
  using number_unsigned_t = nlohmann::json::number_unsigned_t;
  using number_float_t = nlohmann::json::number_float_t;
  using string_t = nlohmann::json::string_t;
  using binary_t = nlohmann::json::binary_t;

  explicit Builder(Json* root) : root_(root) {}

  bool null() { return Put(Json()) != nullptr; }
  bool boolean(bool value) { return Put(Json(value)) != nullptr; }
  bool number_integer(number_integer_t value) { return Put(Json(value)) != nullptr; }
  bool number_unsigned(number_unsigned_t value) { return Put(Json(value)) != nullptr; }
  bool number_float(number_float_t value, const string_t& /*text*/) { return Put(Json(value)) != nullptr; }
  bool string(string_t& value) { return Put(Json(value)) != nullptr; }
  bool binary(binary_t& /*value*/) { return false; }
  bool start_object(std::size_t /*size*/) { return Enter(Object()); }
  bool start_array(std::size_t /*size*/) { return Enter(Array()); }
  bool end_object() { return Leave(); }
  bool end_array() { return Leave(); }
  bool key(string_t& name) {
    name_ = name;
    return true;
  }
  template <typename Error>
  bool parse_error(std::size_t /*at*/, const std::string& /*token*/, const Error& /*error*/) {
    return false;
  }

 private:
  Json* Put(Json value) {
    if (open_.empty()) {
      *root_ = std::move(value);
      return root_;
    }
    if (auto* items = std::get_if<Items>(&open_.back()->value_)) {
      items->push_back(std::move(value));
      return &items->back();
    }
    Json& member = (*open_.back())[name_];
    member = std::move(value);
    return &member;
  }
  bool Enter(Json empty) {
    if (open_.size() == kMaxDepth) return false;
    open_.push_back(Put(std::move(empty)));
    return true;
  }
  bool Leave() {
    open_.pop_back();
    return true;
  }

  Json* const root_;
  std::vector<Json*> open_;  // what is being filled: only the innermost one grows, so none of them moves
  std::string name_;
};

Json::Json(const std::vector<std::string>& texts) : value_(Items(texts.begin(), texts.end())) {}

Json Json::Array() {
  Json array;
  array.value_ = Items();
  return array;
}

Json Json::Object() {
  Json object;
  object.value_ = Members();
  return object;
}

std::optional<Json> Json::Parse(std::string_view text) {
  if (text.find('\0') != std::string_view::npos) return std::nullopt;  // nlohmann's parser takes it for the end
  Json root;
  Builder builder(&root);
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &builder)) return std::nullopt;
  return root;
}

std::string Json::Dump() const {
  std::string out;
  AppendTo(&out);
  return out;
}

void Json::AppendTo(std::string* out) const {
  const char* separator = "";
  if (const auto* value = std::get_if<bool>(&value_)) {
    *out += *value ? "true" : "false";
  } else if (const auto* number = std::get_if<int64_t>(&value_)) {
    *out += Digits(*number);
  } else if (const auto* larger = std::get_if<uint64_t>(&value_)) {
    *out += Digits(*larger);
  } else if (const auto* fraction = std::get_if<double>(&value_); fraction != nullptr && std::isfinite(*fraction)) {
    const std::string digits = Digits(*fraction);
    *out += digits;
    if (digits.find_first_of(".e") == std::string::npos) *out += ".0";  // a reader sees that it may have more
  } else if (const auto* string = std::get_if<std::string>(&value_)) {
    *out += Quoted(*string);
  } else if (const auto* items = std::get_if<Items>(&value_)) {
    *out += '[';
    for (const Json& item : *items) {
      *out += std::exchange(separator, ",");
      item.AppendTo(out);
    }
    *out += ']';
  } else if (const auto* all = std::get_if<Members>(&value_)) {
    *out += '{';
    for (const auto& [name, value_of] : *all) {
      *out += std::exchange(separator, ",");
      *out += Quoted(name);
      *out += ':';
      value_of.AppendTo(out);
    }
    *out += '}';
  } else {
    *out += "null";
  }
}

std::optional<int64_t> Json::integer() const {
  if (const auto* number = std::get_if<int64_t>(&value_)) return *number;
  if (const auto* number = std::get_if<uint64_t>(&value_); number != nullptr && *number <= INT64_MAX)
    return static_cast<int64_t>(*number);
  return std::nullopt;
}

std::optional<uint64_t> Json::natural() const {
  if (const auto* number = std::get_if<uint64_t>(&value_)) return *number;
  if (const auto* number = std::get_if<int64_t>(&value_); number != nullptr && *number >= 0)
    return static_cast<uint64_t>(*number);
  return std::nullopt;
}

const std::vector<Json::Member>& Json::members() const {
  static const std::vector<Member> none;
  const auto* all = std::get_if<Members>(&value_);
  return all == nullptr ? none : *all;
}

const Json* Json::Find(std::string_view name) const {
  for (const Member& member : members())
    if (member.first == name) return &member.second;
  return nullptr;
}

std::string Json::TextOf(std::string_view name) const {
  const Json* member = Find(name);
  return member == nullptr || member->text() == nullptr ? "" : *member->text();
}

Json& Json::operator[](std::string_view name) {
  if (!is_object()) value_ = Members();
  auto& all = std::get<Members>(value_);
  for (Member& member : all)
    if (member.first == name) return member.second;
  return all.emplace_back(std::string(name), Json()).second;
}

void Json::push_back(Json value) {
  if (!std::holds_alternative<Items>(value_)) value_ = Items();
  std::get<Items>(value_).push_back(std::move(value));
}

bool Json::empty() const {
  if (const auto* items = std::get_if<Items>(&value_)) return items->empty();
  return is_null() || (is_object() && members().empty());
}

}  // namespace replica
