#include "cli/dashboard/assets.h"

extern "C" {
// NOLINTBEGIN: names of the assembler's
extern const char replica_asset_index_html[], replica_asset_index_html_end[];
extern const char replica_asset_style_css[], replica_asset_style_css_end[];
extern const char replica_asset_api_js[], replica_asset_api_js_end[];
extern const char replica_asset_app_js[], replica_asset_app_js_end[];
extern const char replica_asset_charts_js[], replica_asset_charts_js_end[];
// NOLINTEND
}

namespace replica {
namespace {

std::string_view Between(const char* begin, const char* end) {
  return {begin, static_cast<size_t>(end - begin)};
}

}  // namespace

const Asset* FindAsset(std::string_view path) {
  static const Asset kAssets[] = {
      {"/", "text/html; charset=utf-8", Between(replica_asset_index_html, replica_asset_index_html_end)},
      {"/style.css", "text/css; charset=utf-8", Between(replica_asset_style_css, replica_asset_style_css_end)},
      {"/api.js", "text/javascript; charset=utf-8", Between(replica_asset_api_js, replica_asset_api_js_end)},
      {"/app.js", "text/javascript; charset=utf-8", Between(replica_asset_app_js, replica_asset_app_js_end)},
      {"/charts.js", "text/javascript; charset=utf-8", Between(replica_asset_charts_js, replica_asset_charts_js_end)},
  };
  for (const Asset& asset : kAssets)
    if (path == asset.path) return &asset;
  return nullptr;
}

}  // namespace replica
