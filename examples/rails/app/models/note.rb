class Note < ApplicationRecord
  validates :body, presence: true
  after_create_commit { Job.create!(note_id: id) }
end
