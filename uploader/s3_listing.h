// Puts the pages of a bucket's listing (ListObjectsV2) together, and trusts none of them: whatever a store answers, the
// listing comes to an end. One thread at a time.
#ifndef LIBREPLICA_UPLOADER_S3_LISTING_H_
#define LIBREPLICA_UPLOADER_S3_LISTING_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "uploader/store.h"

namespace replica {

class S3Lister {
 public:
  // `object`: what is listed, for errors. `root`: what each key begins with in the bucket, taken off in the listing.
  S3Lister(std::string object, std::string root) : object_(std::move(object)), root_(std::move(root)) {}

  // Takes the body of the next page. kCorrupt: it is no page of a listing, it names something outside `root`, or the
  // listing does not get on.
  Status Take(std::string_view body);
  // That was the last page.
  bool done() const { return done_; }
  // What the next page is asked for by; empty for the first one.
  const std::string& token() const { return token_; }
  // What was listed so far. Once.
  Listing Finish();

 private:
  Status Corrupt(const std::string& what) const { return {Code::kCorrupt, "LIST " + object_ + ": " + what}; }

  const std::string object_;
  const std::string root_;
  Listing listing_;
  uint64_t bytes_ = 0;  // of names that were listed
  std::string token_;
  std::string last_;  // the greatest key or folder so far: S3 lists in order, so each page must go beyond it
  int barren_ = 0;    // pages in a row without an entry, as a store may send some
  bool done_ = false;
};

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_S3_LISTING_H_
