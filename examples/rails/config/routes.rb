Rails.application.routes.draw do
  get "/up", to: "notes#up"
  resources :notes, only: %i[index create]
end
