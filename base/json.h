// A JSON value as the library needs it: small documents of its own, and what others wrote.
//
// nlohmann::json's destructor allocates, so a process that has no memory ends in it; this one's does not. It throws
// nothing but std::bad_alloc. Members keep their order.
#ifndef LIBREPLICA_BASE_JSON_H_
#define LIBREPLICA_BASE_JSON_H_

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace replica {

class Json {
 public:
  using Member = std::pair<std::string, Json>;

  Json() = default;                                      // null
  Json(bool value) : value_(value) {}                    // NOLINT: implicit on purpose
  Json(double value) : value_(value) {}                  // NOLINT: implicit on purpose
  Json(const char* text) : value_(std::string(text)) {}  // NOLINT: implicit on purpose
  Json(std::string text) : value_(std::move(text)) {}    // NOLINT: implicit on purpose
  Json(const std::vector<std::string>& texts);           // NOLINT: implicit on purpose
  template <std::integral T>
  requires(!std::same_as<T, bool>) Json(T number) {  // NOLINT: implicit on purpose
    if constexpr (std::is_signed_v<T>) {
      value_ = int64_t{number};
    } else {
      value_ = uint64_t{number};
    }
  }
  // An object of names and values in turn. (No initializer list: GCC 12 destroys what is not made yet when the making
  // of one throws.)
  template <typename... Rest>
  static Json Of(const char* name, Json value, Rest&&... rest) {
    Json object = Object();
    object.Put(name, std::move(value), std::forward<Rest>(rest)...);
    return object;
  }
  static Json Array();   // an empty one
  static Json Object();  // an empty one

  // A document of others: nothing unless it is valid, in UTF-8, and at most 16 deep. Of members with one name the last
  // one counts. A number that is no whole one, or has more than 64 bits, is a double.
  static std::optional<Json> Parse(std::string_view text);
  // On one line. Bytes that are not UTF-8 become U+FFFD; a number that is not finite becomes null.
  std::string Dump() const;

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  bool is_object() const { return std::holds_alternative<Members>(value_); }
  // Null unless it is of that type.
  const std::string* text() const { return std::get_if<std::string>(&value_); }
  const bool* flag() const { return std::get_if<bool>(&value_); }
  const double* real() const { return std::get_if<double>(&value_); }
  // Nothing unless it is a whole number of that range.
  std::optional<int64_t> integer() const;
  std::optional<uint64_t> natural() const;

  // The members of an object; of anything else none.
  const std::vector<Member>& members() const;
  // Null when there is none with that name.
  const Json* Find(std::string_view name) const;
  bool contains(std::string_view name) const { return Find(name) != nullptr; }
  // The text of a member; empty when it is not there or no text.
  std::string TextOf(std::string_view name) const;

  // The member, added (null) when it is not there. What is no object becomes one.
  Json& operator[](std::string_view name);
  // At the end of an array. What is no array becomes one.
  void push_back(Json value);
  // True for an array or object without anything in it, and for null.
  bool empty() const;

 private:
  class Builder;
  using Items = std::vector<Json>;
  using Members = std::vector<Member>;
  void Put() {}
  template <typename... Rest>
  void Put(const char* name, Json value, Rest&&... rest) {
    (*this)[name] = std::move(value);
    Put(std::forward<Rest>(rest)...);
  }
  void AppendTo(std::string* out) const;

  std::variant<std::monostate, bool, int64_t, uint64_t, double, std::string, Items, Members> value_;
};

}  // namespace replica

#endif  // LIBREPLICA_BASE_JSON_H_
