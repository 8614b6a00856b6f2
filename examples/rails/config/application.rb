require_relative "boot"

require "rails"
require "active_record/railtie"
require "action_controller/railtie"

module LibReverse
  class Application < Rails::Application
    config.load_defaults 6.1
    config.api_only = true
    config.eager_load = Rails.env.production?
    config.active_record.dump_schema_after_migration = false
  end
end
