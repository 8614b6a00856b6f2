class NotesController < ActionController::API
  before_action { response.headers["X-Worker"] = Process.pid.to_s }

  def index
    render json: Note.order(:id)
  end

  def create
    render json: Note.create!(params.permit(:body)), status: :created
  end

  def up
    render json: { notes: Note.count, jobs: Job.count }
  end
end
