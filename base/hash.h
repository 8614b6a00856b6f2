// XXH3-64, the hash of pages, blocks and headers (https://xxhash.com). Not a defence against forgery.
#ifndef LIBREPLICA_BASE_HASH_H_
#define LIBREPLICA_BASE_HASH_H_

#include <cstdint>
#include <string_view>

namespace replica {

uint64_t Hash64(std::string_view bytes);
uint64_t Hash64(const void* bytes, size_t size, uint64_t seed);

// Hash64 of bytes that come in pieces.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;
  void Add(std::string_view bytes);
  uint64_t Digest() const;

 private:
  void* const state_;
};

}  // namespace replica

#endif  // LIBREPLICA_BASE_HASH_H_
