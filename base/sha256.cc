// OpenSSL's low-level functions: they allocate nothing and fetch nothing, where EVP crashes in its first fetch when
// there is no memory (3.0).
#define OPENSSL_SUPPRESS_DEPRECATED

#include "base/sha256.h"

#include <openssl/md5.h>

namespace replica {

Sha256::Sha256() {
  (void)SHA256_Init(&context_);  // these cannot fail
}

void Sha256::Update(std::string_view bytes) {
  (void)SHA256_Update(&context_, bytes.data(), bytes.size());
}

Sha256::Digest Sha256::Finish() const {
  SHA256_CTX copy = context_;
  Digest digest{};
  (void)SHA256_Final(digest.data(), &copy);
  return digest;
}

Sha256::Digest Sha256::Of(std::string_view bytes) {
  Sha256 sha;
  sha.Update(bytes);
  return sha.Finish();
}

std::array<uint8_t, 16> Md5Of(std::string_view bytes) {
  std::array<uint8_t, 16> digest{};
  (void)MD5(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest.data());
  return digest;
}

}  // namespace replica
