// A running SHA-256, OpenSSL's. Not thread-safe.
#ifndef LIBREPLICA_BASE_SHA256_H_
#define LIBREPLICA_BASE_SHA256_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>

typedef struct evp_md_ctx_st EVP_MD_CTX;  // NOLINT: OpenSSL's own name

namespace replica {

class Sha256 {
 public:
  using Digest = std::array<uint8_t, 32>;

  // Throws std::bad_alloc when OpenSSL has no memory, as do the others.
  Sha256();
  void Update(std::string_view bytes);
  // Of all that was given so far; more may follow.
  Digest Finish() const;

  static Digest Of(std::string_view bytes);

 private:
  struct Free {
    void operator()(EVP_MD_CTX* context) const;
  };
  std::unique_ptr<EVP_MD_CTX, Free> context_;
};

}  // namespace replica

#endif  // LIBREPLICA_BASE_SHA256_H_
