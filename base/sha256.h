// A running SHA-256, OpenSSL's, its HMAC, and the MD5 that S3 wants of some requests. They need no memory, and cannot
// fail. Not thread-safe.
#ifndef LIBREPLICA_BASE_SHA256_H_
#define LIBREPLICA_BASE_SHA256_H_

#include <openssl/sha.h>

#include <array>
#include <cstdint>
#include <string_view>

namespace replica {

class Sha256 {
 public:
  using Digest = std::array<uint8_t, 32>;

  Sha256();
  void Update(std::string_view bytes);
  // Of all that was given so far; more may follow.
  Digest Finish() const;

  static Digest Of(std::string_view bytes);

 private:
  SHA256_CTX context_;
};

Sha256::Digest HmacSha256(std::string_view key, std::string_view bytes);
std::array<uint8_t, 16> Md5Of(std::string_view bytes);

}  // namespace replica

#endif  // LIBREPLICA_BASE_SHA256_H_
