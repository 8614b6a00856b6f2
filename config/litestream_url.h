// URLs that say more than bucket and prefix, as Litestream's do.
#ifndef LIBREPLICA_CONFIG_LITESTREAM_URL_H_
#define LIBREPLICA_CONFIG_LITESTREAM_URL_H_

#include <map>
#include <string>
#include <vector>

#include "base/status.h"

namespace replica {

struct LitestreamUrl {
  std::string url;                              // the plain rest: s3://bucket/prefix, file:///folder
  std::map<std::string, std::string> settings;  // by key of the configuration file; unchecked
  std::vector<std::string> warnings;            // of what is not needed or not supported here, as in the file
};

// Takes apart
//   s3://bucket/path?endpoint=…&region=…&forcePathStyle=…   (Litestream 0.5), and
//   s3://bucket.s3.eu-west-2.scw.cloud/path                 (providers' host names).
// Other URLs stay as they are. An error names the part of the query that is unknown, or that may not be passed over.
Result<LitestreamUrl> ParseLitestreamUrl(const std::string& url);

}  // namespace replica

#endif  // LIBREPLICA_CONFIG_LITESTREAM_URL_H_
