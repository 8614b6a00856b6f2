// What the monitor saw, in Prometheus' text format (version 0.0.4). docs/metrics.md lists the metrics.
#ifndef LIBREPLICA_CLI_DASHBOARD_METRICS_H_
#define LIBREPLICA_CLI_DASHBOARD_METRICS_H_

#include <string>

#include "cli/dashboard/monitor.h"

namespace replica {

std::string PrometheusText(Monitor* monitor);

}  // namespace replica

#endif  // LIBREPLICA_CLI_DASHBOARD_METRICS_H_
