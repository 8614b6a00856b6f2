// Fixed-width integers and varints in byte buffers. Little-endian is libreplica's own formats; big-endian is SQLite's.
#ifndef LIBREPLICA_BASE_BYTES_H_
#define LIBREPLICA_BASE_BYTES_H_

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

namespace replica {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "the formats are little-endian; add byte swaps before building for a big-endian machine");

// A whole number in decimal digits and nothing else; nothing when it is none, or greater than INT64_MAX.
std::optional<uint64_t> ParseNumber(std::string_view text);

template <typename T>
T LoadLittle(const void* p) {
  static_assert(std::is_unsigned_v<T>);
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <typename T>
void StoreLittle(void* p, T v) {
  static_assert(std::is_unsigned_v<T>);
  std::memcpy(p, &v, sizeof v);
}

inline uint32_t LoadBig32(const void* p) {
  return __builtin_bswap32(LoadLittle<uint32_t>(p));
}
inline uint16_t LoadBig16(const void* p) {
  return __builtin_bswap16(LoadLittle<uint16_t>(p));
}
inline void StoreBig32(void* p, uint32_t v) {
  StoreLittle<uint32_t>(p, __builtin_bswap32(v));
}

template <typename T>
void AppendLittle(std::string& out, T v) {
  char b[sizeof(T)];
  StoreLittle<T>(b, v);
  out.append(b, sizeof b);
}

// LEB128: seven bits a byte, low group first, high bit set on all but the last.
inline void AppendVarint(std::string& out, uint64_t v) {
  while (v >= 0x80) {
    out.push_back(static_cast<char>(v | 0x80));
    v >>= 7;
  }
  out.push_back(static_cast<char>(v));
}

inline uint64_t ZigZag(int64_t v) {
  return (static_cast<uint64_t>(v) << 1) ^ static_cast<uint64_t>(v >> 63);
}
inline int64_t UnZigZag(uint64_t v) {
  return static_cast<int64_t>(v >> 1) ^ -static_cast<int64_t>(v & 1);
}

// Reads values off the front of a buffer that is not trusted. After the first read past the end every
// read returns 0 and ok() is false, so a parser may check once, before it uses what it read.
class ByteReader {
 public:
  explicit ByteReader(std::string_view data) : data_(data) {}

  bool ok() const { return ok_; }
  size_t remaining() const { return data_.size(); }

  template <typename T>
  T Little() {
    if (!Need(sizeof(T))) return 0;
    T v = LoadLittle<T>(data_.data());
    data_.remove_prefix(sizeof(T));
    return v;
  }

  uint64_t Varint() {
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (!Need(1)) return 0;
      auto b = static_cast<uint8_t>(data_.front());
      data_.remove_prefix(1);
      v |= static_cast<uint64_t>(b & 0x7f) << shift;
      if ((b & 0x80) == 0) return v;
    }
    ok_ = false;
    return 0;
  }

  std::string_view Bytes(size_t n) {
    if (!Need(n)) return {};
    std::string_view v = data_.substr(0, n);
    data_.remove_prefix(n);
    return v;
  }

 private:
  bool Need(size_t n) {
    if (ok_ && data_.size() >= n) return true;
    ok_ = false;
    return false;
  }

  std::string_view data_;
  bool ok_ = true;
};

using Id = std::array<uint8_t, 16>;  // a database id or a generation id

std::string HexEncode(const void* data, size_t size);
inline std::string HexEncode(const Id& id) {
  return HexEncode(id.data(), id.size());
}
// Of lower-case digits; stops at the first that is none.
std::string HexDecode(std::string_view text);
// Lower-case, zero-padded, 16 digits: the form of numbers in object keys, so that they sort.
std::string Hex16(uint64_t v);
// False unless `text` is exactly 32 lower-case hexadecimal digits.
bool ParseId(std::string_view text, Id* id);
// False unless `text` is exactly 16 lower-case hexadecimal digits.
bool ParseHex16(std::string_view text, uint64_t* v);

}  // namespace replica

#endif  // LIBREPLICA_BASE_BYTES_H_
